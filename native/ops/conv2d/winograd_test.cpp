#include <gtest/gtest.h>

#include <cmath>

#include "core/avx512.h"
#include "core/normals_test.h"
#include "core/parallel.h"
#include "ops/conv2d/winograd/kernels.h"

namespace mixpl {
namespace {

struct Case {
  int64_t n, h, w, c, k;
  int padding = 1;
  bool bias = false, residual = false, relu = false;
};

// The sum over taps and channels in double, and bias, residual and ReLU.
std::vector<double> slow(const Tensor& x, const Tensor& weight, const Tensor& bias,
                         const Tensor& residual, const Shape& out, int padding, bool relu) {
  const Tensor xf = x.to(DType::f32), rf = residual.defined() ? residual.to(DType::f32) : residual;
  const Tensor wf = x.dtype() == DType::bf16 ? weight.to(DType::bf16).to(DType::f32) : weight;
  const int64_t h = x.size(1), w = x.size(2), c = x.size(3), k = out[3];
  std::vector<double> y(out.numel());
  for (int64_t i = 0; i < out.numel(); ++i) {
    const int64_t f = i % k, q = i / k % out[2], p = i / k / out[2] % out[1],
                  n = i / k / out[2] / out[1];
    double sum = bias.defined() ? bias.data<float>()[f] : 0;
    for (int64_t r = 0; r < 3; ++r)
      for (int64_t s = 0; s < 3; ++s) {
        const int64_t row = p + r - padding, column = q + s - padding;
        if (row < 0 || row >= h || column < 0 || column >= w) continue;
        const float* from = xf.data<float>() + ((n * h + row) * w + column) * c;
        const float* filter = wf.data<float>() + ((f * 3 + r) * 3 + s) * c;
        for (int64_t j = 0; j < c; ++j) sum += double(from[j]) * filter[j];
      }
    if (residual.defined()) sum += rf.data<float>()[i];
    y[i] = relu ? std::max(sum, 0.0) : sum;
  }
  return y;
}

// dW of the same convolution.
std::vector<double> slow_gradient(const Tensor& x, const Tensor& dy, int padding) {
  const Tensor xf = x.to(DType::f32), df = dy.to(DType::f32);
  const int64_t h = x.size(1), w = x.size(2), c = x.size(3), k = dy.size(3);
  std::vector<double> dw(k * 9 * c);
  for (int64_t i = 0; i < dy.numel() / k; ++i) {
    const int64_t q = i % dy.size(2), p = i / dy.size(2) % dy.size(1),
                  n = i / dy.size(2) / dy.size(1);
    for (int64_t tap = 0; tap < 9; ++tap) {
      const int64_t row = p + tap / 3 - padding, column = q + tap % 3 - padding;
      if (row < 0 || row >= h || column < 0 || column >= w) continue;
      const float* from = xf.data<float>() + ((n * h + row) * w + column) * c;
      for (int64_t f = 0; f < k; ++f)
        for (int64_t j = 0; j < c; ++j)
          dw[(f * 9 + tap) * c + j] += double(df.data<float>()[i * k + f]) * from[j];
    }
  }
  return dw;
}

// Largest difference over largest value, after half a unit of bf16 is allowed for.
double error(const Tensor& got, const std::vector<double>& want) {
  const double unit = got.dtype() == DType::bf16 ? std::ldexp(1.0, -8) : 0;
  const Tensor values = got.to(DType::f32);
  double worst = 0, largest = 1e-30;
  for (size_t i = 0; i < want.size(); ++i) {
    const double difference = std::abs(values.data<float>()[i] - want[i]);
    worst = std::max(worst, difference - unit * std::abs(want[i]));
    largest = std::max(largest, std::abs(want[i]));
  }
  return worst / largest;
}

struct Variant {
  bool wide;  // AVX-512, else AVX2
  DType dtype;
};

bool supported(const Variant& v) {
#if defined(__x86_64__)
  return !v.wide || (v.dtype == DType::bf16 ? has_avx512_bf16() : has_avx512());
#else
  return false;
#endif
}

class Winograd : public testing::TestWithParam<Variant> {
 protected:
  void SetUp() override {
    if (!supported(GetParam())) GTEST_SKIP() << "not on this processor";
  }
  static const cpu::winograd::Kernels& kernels() {
#if defined(__x86_64__)
    if (!GetParam().wide) return cpu::winograd::avx2_kernels();
    return cpu::winograd::avx512_kernels();
#else
    throw StateError("never reached");
#endif
  }
};

TEST_P(Winograd, AgreesWithASlowSum) {
  const DType dtype = GetParam().dtype;
  const Case cases[] = {
      {1, 1, 1, 1, 1},
      {1, 1, 1, 16, 16, 1, true},
      {2, 4, 4, 16, 16},
      {1, 5, 6, 16, 32, 0},
      {1, 3, 3, 17, 5, 2, true, true, true},
      {3, 9, 7, 33, 36, 1, true, false, true},
      {1, 2, 19, 48, 50, 1, false, true},
      {2, 13, 11, 3, 81, 1, true, true},
      {1, 30, 26, 8, 20, 1, true, true, true},
      {1, 12, 12, 64, 7, 2, false, false, true},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(
        str("[", c.n, ", ", c.h, ", ", c.w, ", ", c.c, "] to ", c.k, ", padding ", c.padding));
    Conv2dOptions options;
    options.padding = c.padding, options.relu = c.relu;
    const Shape out{c.n, c.h + 2 * c.padding - 2, c.w + 2 * c.padding - 2, c.k};
    const Tensor x = normals({c.n, c.h, c.w, c.c}, dtype, 1);
    const Tensor weight = normals({c.k, 3, 3, c.c}, DType::f32, 2);
    const Tensor bias = c.bias ? normals({c.k}, DType::f32, 3) : Tensor();
    const Tensor residual = c.residual ? normals(out, dtype, 4) : Tensor();
    Tensor y = Tensor::empty(out, dtype);
    kernels().forward(x, weight, bias, residual, options, y);
    EXPECT_LT(error(y, slow(x, weight, bias, residual, out, c.padding, c.relu)), 2e-6);

    // The gradient: a convolution by the turned kernel.
    const Tensor dy = normals(out, dtype, 5);
    Tensor dx = Tensor::empty_like(x);
    kernels().backward_data(dy, weight, options, dx);
    Tensor turned = Tensor::empty({c.c, 3, 3, c.k}, DType::f32);
    for (int64_t i = 0; i < weight.numel(); ++i)
      turned.data<float>()[(i % c.c * 9 + 8 - i / c.c % 9) * c.k + i / c.c / 9] =
          weight.data<float>()[i];
    EXPECT_LT(error(dx, slow(dy, turned, {}, {}, x.shape(), 2 - c.padding, false)), 2e-6);

    Tensor dweight = Tensor::empty_like(weight);
    kernels().backward_weight(x, dy, options, dweight);
    EXPECT_LT(error(dweight, slow_gradient(x, dy, c.padding)), 2e-6);
  }
}

TEST_P(Winograd, StaysAccurateOverManyChannels) {
  const Tensor x = normals({1, 8, 8, 512}, GetParam().dtype, 1);
  const Tensor weight = normals({32, 3, 3, 512}, DType::f32, 2);
  Conv2dOptions options;
  options.padding = 1;
  const Shape out{1, 8, 8, 32};
  Tensor y = Tensor::empty(out, GetParam().dtype);
  kernels().forward(x, weight, {}, {}, options, y);
  EXPECT_LT(error(y, slow(x, weight, {}, {}, out, 1, false)), 3e-6);
}

TEST_P(Winograd, GradientStaysAccurateOverManyPixels) {
  // Several groups of tiles, two slices of filters.
  const Tensor x = normals({2, 61, 46, 18}, GetParam().dtype, 1);
  const Tensor dy = normals({2, 61, 46, 290}, GetParam().dtype, 2);
  Conv2dOptions options;
  options.padding = 1;
  Tensor dweight = Tensor::empty({290, 3, 3, 18}, DType::f32);
  kernels().backward_weight(x, dy, options, dweight);
  EXPECT_LT(error(dweight, slow_gradient(x, dy, 1)), 4e-6);
}

TEST_P(Winograd, DoesNotDependOnThreads) {
  // More than one group of tiles, an odd number of panels.
  const Tensor x = normals({2, 50, 60, 16}, GetParam().dtype, 1);
  const Tensor weight = normals({80, 3, 3, 16}, DType::f32, 2);
  Conv2dOptions options;
  options.padding = 1;
  Tensor y = Tensor::empty({2, 50, 60, 80}, GetParam().dtype), again = Tensor::empty_like(y);
  const Tensor dy = normals(y.shape(), GetParam().dtype, 3);
  Tensor dweight = Tensor::empty_like(weight), dweight_again = Tensor::empty_like(weight);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  kernels().forward(x, weight, {}, {}, options, y);
  kernels().backward_weight(x, dy, options, dweight);
  omp_set_num_threads(3);
  kernels().forward(x, weight, {}, {}, options, again);
  kernels().backward_weight(x, dy, options, dweight_again);
  omp_set_num_threads(threads);
  EXPECT_EQ(std::memcmp(y.raw(), again.raw(), y.nbytes()), 0);
  EXPECT_EQ(std::memcmp(dweight.raw(), dweight_again.raw(), dweight.nbytes()), 0);
}

TEST_P(Winograd, KeepsNotANumberThroughRelu) {
  Tensor x = Tensor::full({1, 4, 4, 1}, NAN, DType::f32).to(GetParam().dtype);
  const Tensor weight = Tensor::full({1, 3, 3, 1}, 1, DType::f32);
  Conv2dOptions options;
  options.padding = 1, options.relu = true;
  Tensor y = Tensor::empty_like(x);
  kernels().forward(x, weight, {}, {}, options, y);
  EXPECT_TRUE(std::isnan(y.to(DType::f32).data<float>()[5]));
}

INSTANTIATE_TEST_SUITE_P(Variants, Winograd,
                         testing::Values(Variant{true, DType::f32}, Variant{true, DType::bf16},
                                         Variant{false, DType::f32}, Variant{false, DType::bf16}),
                         [](const auto& info) {
                           return std::string(info.param.wide ? "avx512_" : "avx2_") +
                                  name_of(info.param.dtype);
                         });

}  // namespace
}  // namespace mixpl
