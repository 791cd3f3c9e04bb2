#include "optim/gradient_norm.h"

#include "core/check.h"
#include "ops/registry.h"

namespace mixpl {

double gradient_norm(const std::vector<Tensor>& gradients) {
  if (gradients.empty()) return 0;
  const Check check("gradientNorm");
  std::vector<UpdateRow> rows;
  for (const Tensor& gradient : gradients) {
    check.dtype("gradient", gradient, DType::f32);
    check.same_device("gradient", gradient, gradients[0]);
    rows.push_back({nullptr, gradient.data<float>(), nullptr, nullptr, gradient.numel()});
  }
  UpdateTable table;
  table.assign(std::move(rows));
  const Device device = gradients[0].device();
  Tensor clip = Clip::empty(device);
  MIXPL_DISPATCH(device, clip_gradients, table, 0, clip);
  double norm;
  std::memcpy(&norm, clip.to_vector<float>().data(), sizeof norm);
  return norm;
}

namespace {
// Any gradients -> f32 [].
const bool registered =
    register_op("gradientNorm", [](const std::vector<Tensor>& in, const Options&) {
      return std::vector<Tensor>{Tensor::full({}, static_cast<float>(gradient_norm(in)), DType::f32,
                                              in.empty() ? Device::cpu() : in[0].device())};
    });
}  // namespace

}  // namespace mixpl
