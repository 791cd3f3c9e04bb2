#include "core/cuda/kernel.h"
#include "detect/dense_targets.h"

namespace mixpl::cuda {

void fill_dense_targets(int64_t images, const DenseTargetView& view) {
  for_each(images * view.pyramid.count(), view);
}

void weigh_images(const Tensor& positives, const std::vector<Tensor>& weights, Tensor& factors) {
  const int64_t images = positives.numel();
  for_each(images, ImageFactorView{positives.data<float>(), images, factors.data<float>()});
  for (const Tensor& level : weights)
    for_each(level.numel(),
             ImageWeightView{factors.data<float>(), level.size(1), level.data<float>()});
}

}  // namespace mixpl::cuda
