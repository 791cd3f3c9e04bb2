#include "ops/scaled_sum/scaled_sum.h"
#include "ops/scaled_sum/scaled_sum_math.h"

namespace mixpl::cpu {
namespace {

const float* number_of(const Tensor& t) { return t.defined() ? t.data<float>() : nullptr; }

}  // namespace

void scaled_sum_forward(const std::vector<Tensor>& terms, const Tensor& divisor, float scale,
                        Tensor& y) {
  double sum = 0;
  for (const Tensor& term : terms) sum += *term.data<float>();
  *y.data<float>() = scaled(sum, scale, number_of(divisor));
}

void scaled_sum_backward(const Tensor& dy, const Tensor& divisor, float scale, Tensor& dterm) {
  *dterm.data<float>() = scaled(*dy.data<float>(), scale, number_of(divisor));
}

}  // namespace mixpl::cpu
