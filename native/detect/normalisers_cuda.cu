#include "core/cuda/kernel.h"
#include "detect/normalisers.h"

namespace mixpl::cuda {
namespace {

struct HasBox {
  const int32_t* assigned;
  int64_t each;
  MIXPL_DEVICE float operator()(int64_t image, int64_t i) const {
    return assigned[image * each + i] >= 0 ? 1.0f : 0.0f;
  }
};

struct AtLeastOne {
  const float* counts;
  MIXPL_DEVICE float operator()(int64_t i) const { return counts[i] < 1.0f ? 1.0f : counts[i]; }
};

struct Raise {
  float* value;
  float least;
  MIXPL_DEVICE void operator()(int64_t) const {
    if (*value < least) *value = least;
  }
};

}  // namespace

void count_positives(const Tensor& assigned, Tensor& counts) {
  const int64_t each = assigned.size(1);
  reduce_sum_rows(assigned.size(0), each, HasBox{assigned.data<int32_t>(), each},
                  counts.data<float>());
}

void average_factor(const Tensor& counts, Tensor& factor) {
  reduce_sum(counts.numel(), AtLeastOne{counts.data<float>()}, factor.data<float>());
}

void sum_of(const std::vector<Tensor>& tensors, double least, Tensor& sum) {
  std::vector<int64_t> sizes;
  for (const Tensor& t : tensors) sizes.push_back(t.numel());
  const SumView view{Pyramid(sizes), pointers<const float, float>(tensors)};
  reduce_sum(view.sizes.count(), view, sum.data<float>());
  for_each(1, Raise{sum.data<float>(), static_cast<float>(least)});
}

}  // namespace mixpl::cuda
