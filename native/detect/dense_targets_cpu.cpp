#include "detect/dense_targets.h"
#include "detect/for_each_place.h"

namespace mixpl::cpu {

void fill_dense_targets(int64_t images, const DenseTargetView& view) {
  for_each_place(view.pyramid, images, view);
}

void weigh_images(const Tensor& positives, const std::vector<Tensor>& weights, Tensor& factors) {
  const int64_t images = positives.numel();
  parallel_for(images, ImageFactorView{positives.data<float>(), images, factors.data<float>()});
  for (const Tensor& level : weights)
    parallel_for(level.numel(),
                 ImageWeightView{factors.data<float>(), level.size(1), level.data<float>()});
}

}  // namespace mixpl::cpu
