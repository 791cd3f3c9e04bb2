#pragma once

#include <vector>

#include "core/launch.h"
#include "optim/flat_table.h"
#include "optim/gradient_norm.h"

namespace mixpl {

/// A teacher's tensor and its student's, as loops over the elements see them.
struct EmaRow {
  float* teacher;
  const float* student;
  int64_t numel;
};
using EmaTable = FlatTable<EmaRow>;

/// Tensors of a teacher and of its student, f32 on one device. Kept for a set of tensors it saves
/// describing them to a GPU again.
class EmaPairs {
 public:
  /// Replaces them. @throws ShapeError, DTypeError, DeviceError
  void assign(std::vector<Tensor> teacher, const std::vector<Tensor>& student);
  /// teacher = (1 - momentum) teacher + momentum student; momentum 1 copies, 0 changes nothing.
  /// @param clip of an optimizer's step under way, or undefined: nothing is changed if that step
  ///             changes nothing, which a GPU sees for itself
  /// @throws RangeError
  void update(double momentum, const Tensor& clip = Tensor());

 private:
  std::vector<Tensor> teacher_;
  EmaTable table_;
};

MIXPL_HD float ema_element(float teacher, float student, float keep, float share) {
  return keep * teacher + share * student;
}

namespace cpu {
/// keep 0 copies; `clip` may be null.
void ema_update(EmaTable& table, Device device, float keep, float share, const Clip* clip);
}  // namespace cpu
namespace cuda {
void ema_update(EmaTable& table, Device device, float keep, float share, const Clip* clip);
}  // namespace cuda

}  // namespace mixpl
