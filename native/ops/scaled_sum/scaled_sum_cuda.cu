#include "core/cuda/kernel.h"
#include "ops/scaled_sum/scaled_sum.h"
#include "ops/scaled_sum/scaled_sum_math.h"

namespace mixpl::cuda {
namespace {

// A handful of numbers at unrelated addresses: one thread adds them in order.
struct ScaledSum {
  const float* terms[kMostScaledTerms];
  DivisorView divisor;
  float* y;
  int count;
  float scale;

  MIXPL_DEVICE void operator()(int64_t) const {
    double sum = 0;
    for (int i = 0; i < count; ++i) sum += *terms[i];
    *y = divisor.scaled(sum, scale);
  }
};

}  // namespace

void scaled_sum_forward(const std::vector<Tensor>& terms, const Divisor& divisor, float scale,
                        Tensor& y) {
  ScaledSum sum{{}, DivisorView(divisor), y.data<float>(), 0, scale};
  for (const Tensor& term : terms) sum.terms[sum.count++] = term.data<float>();
  for_each(1, sum);
}

void scaled_sum_backward(const Tensor& dy, const Divisor& divisor, float scale, Tensor& dterm) {
  scaled_sum_forward({dy}, divisor, scale, dterm);
}

}  // namespace mixpl::cuda
