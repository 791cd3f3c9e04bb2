#include <algorithm>

#include "core/parallel.h"
#include "detect/normalisers.h"

namespace mixpl::cpu {

void count_positives(const Tensor& assigned, Tensor& counts) {
  const int64_t each = assigned.size(1);
  for (int64_t n = 0; n < assigned.size(0); ++n) {
    const int32_t* own = assigned.data<int32_t>() + n * each;
    counts.data<float>()[n] =
        static_cast<float>(std::count_if(own, own + each, [](int32_t box) { return box >= 0; }));
  }
}

void average_factor(const Tensor& counts, Tensor& factor) {
  double sum = 0;
  for (int64_t n = 0; n < counts.numel(); ++n) sum += std::max(counts.data<float>()[n], 1.0f);
  *factor.data<float>() = static_cast<float>(sum);
}

void sum_of(const std::vector<Tensor>& tensors, double least, Tensor& sum) {
  double all = 0;
  for (const Tensor& t : tensors) {
    const float* x = t.data<float>();
    all += parallel_sum(t.numel(), [x](int64_t i) { return double(x[i]); });
  }
  *sum.data<float>() = static_cast<float>(std::max(all, least));
}

}  // namespace mixpl::cpu
