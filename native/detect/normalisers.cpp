#include "detect/normalisers.h"

#include "core/launch.h"

namespace mixpl {

Tensor count_positives(const Tensor& assigned) {
  Tensor counts = Tensor::empty({assigned.size(0)}, DType::f32, assigned.device());
  MIXPL_DISPATCH(assigned.device(), count_positives, assigned, counts);
  return counts;
}

Tensor average_factor(const Tensor& counts) {
  Tensor factor = Tensor::empty({1}, DType::f32, counts.device());
  MIXPL_DISPATCH(counts.device(), average_factor, counts, factor);
  return factor;
}

Tensor sum_of(const std::vector<Tensor>& tensors, double least) {
  const Device device = tensors.at(0).device();
  Tensor sum = Tensor::empty({1}, DType::f32, device);
  MIXPL_DISPATCH(device, sum_of, tensors, least, sum);
  return sum;
}

}  // namespace mixpl
