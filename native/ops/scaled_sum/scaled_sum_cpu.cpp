#include "ops/scaled_sum/scaled_sum.h"
#include "ops/scaled_sum/scaled_sum_math.h"

namespace mixpl::cpu {

void scaled_sum_forward(const std::vector<Tensor>& terms, const Divisor& divisor, float scale,
                        Tensor& y) {
  double sum = 0;
  for (const Tensor& term : terms) sum += *term.data<float>();
  *y.data<float>() = DivisorView(divisor).scaled(sum, scale);
}

void scaled_sum_backward(const Tensor& dy, const Divisor& divisor, float scale, Tensor& dterm) {
  scaled_sum_forward({dy}, divisor, scale, dterm);
}

}  // namespace mixpl::cpu
