// The norm of all gradients together, and what clipping makes of it. On a GPU both stay there: the
// update reads them, and the host only learns what happened.
#pragma once

#include <cmath>

#include "core/launch.h"
#include "optim/flat_table.h"

namespace mixpl {

/// One tensor that an optimizer trains, as loops over the elements see it.
struct UpdateRow {
  float* value;
  const float* gradient;  // null: none, the tensor is left alone
  float *first, *second;  // the optimizer's state, null where it has none
  int64_t numel;
};
using UpdateTable = FlatTable<UpdateRow>;

/// First in a tensor (f32, on the device of the gradients), before the losses that they are of.
struct Clip {
  double norm;            // L2, of all gradients; infinity or NaN when one holds such
  float scale;            // what every gradient is multiplied with
  int32_t finite_losses;  // 0: one of the losses is infinite or NaN

  /// A step on gradients or losses that are not finite must change nothing.
  MIXPL_HD bool usable() const { return norm < INFINITY && finite_losses; }

  static constexpr int64_t kFloats = 4;  // its size
  static Tensor empty(Device device, int64_t losses = 0) {
    return Tensor::empty({kFloats + losses}, DType::f32, device);
  }
  static Clip* of(const Tensor& t) { return static_cast<Clip*>(t.raw()); }
};
static_assert(sizeof(Clip) == Clip::kFloats * sizeof(float));

/// What gradients of norm `norm` are multiplied with so that it becomes at most `clip_norm` (0: no
/// clipping). Never enlarges. Source: torch.nn.utils.clip_grad_norm_.
MIXPL_HD float clip_scale(double norm, double clip_norm) {
  if (!(clip_norm > 0)) return 1.0f;
  const double share = clip_norm / (norm + 1e-6);
  return share < 1.0 ? static_cast<float>(share) : 1.0f;
}

/// L2 norm of all gradients (f32, on one device) together; infinity or NaN when a gradient holds
/// one. Summed in double in a fixed order: the same bits for any number of threads.
/// @throws DTypeError, DeviceError
double gradient_norm(const std::vector<Tensor>& gradients);

MIXPL_HD bool is_finite(float x) { return fabsf(x) < INFINITY; }

namespace cpu {
/// Writes the Clip of the table's gradients in front of the losses that `clip` holds.
void clip_gradients(UpdateTable& table, double clip_norm, Tensor& clip);
}  // namespace cpu
namespace cuda {
void clip_gradients(UpdateTable& table, double clip_norm, Tensor& clip);
}  // namespace cuda

}  // namespace mixpl
