// Convolution, linear and their gradients on a GPU (or its emulation) against the CPU, over every
// kernel that the sizes select: partial tiles, every run of channels, split sums, empty tensors.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "autograd/tape.h"
#include "core/philox.h"
#include "ops/conv2d/conv2d.h"

namespace mixpl {
namespace {

struct Case {
  int64_t n, h, w, c, k;  // all channels
  int r, s;
  Conv2dOptions options = {};
  bool bias = false, residual = false;
  friend std::ostream& operator<<(std::ostream& out, const Case& v) {
    const Conv2dOptions& o = v.options;
    return out << "x [" << v.n << ' ' << v.h << ' ' << v.w << ' ' << v.c << "], filters [" << v.k
               << ' ' << v.r << ' ' << v.s << "], stride " << o.stride << ", padding " << o.padding
               << ", dilation " << o.dilation << ", groups " << o.groups << ", relu " << o.relu
               << ", bias " << v.bias << ", residual " << v.residual;
  }
};

Tensor normals(const Shape& shape, DType dtype, uint64_t seed) {
  Tensor t = Tensor::empty(shape, DType::f32);
  const Philox random{seed, 0};
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = random.normal(i);
  return t.to(dtype);
}

// y, then the gradients of x, weight, bias and residual, on the host as f32.
std::vector<Tensor> run(const Case& v, DType dtype, Device device, bool allow_tf32 = false) {
  Tape tape;
  Context context;
  context.device = device;
  context.allow_tf32 = allow_tf32;
  context.tape = &tape;
  ContextScope scope(context);
  // The CPU is the reference: in f32, on what the GPU gets.
  const DType type = device.is_cuda() ? dtype : DType::f32;
  const auto input = [&](const Shape& shape, uint64_t seed, DType to) {
    Tensor t = normals(shape, dtype, seed).to(to).to(device);
    return t.set_requires_grad(true);
  };
  const Tensor x = input({v.n, v.h, v.w, v.c}, 1, type);
  const Tensor weight = input({v.k, v.r, v.s, v.c / v.options.groups}, 2, DType::f32);
  const Shape shape = conv2d_shape(x.shape(), weight.shape(), v.options);
  const Tensor bias = v.bias ? input({v.k}, 3, DType::f32) : Tensor();
  const Tensor residual = v.residual ? input(shape, 4, type) : Tensor();
  const Tensor y = conv2d(x, weight, bias, v.options, residual);
  tape.backward({y}, {normals(shape, dtype, 5).to(type).to(device)});
  std::vector<Tensor> results{y};
  for (const Tensor& t : {x, weight, bias, residual}) results.push_back(t.defined() ? t.grad() : t);
  for (Tensor& t : results)
    if (t.defined()) t = t.to(Device::cpu()).to(DType::f32);
  return results;
}

// The largest difference over the largest value, after half a unit of the type is allowed for.
void expect_close(const Tensor& got, const Tensor& want, double unit, double tolerance,
                  const char* what) {
  ASSERT_EQ(got.shape(), want.shape()) << what;
  double largest = 1e-30;
  for (int64_t i = 0; i < want.numel(); ++i)
    largest = std::max(largest, std::abs(double(want.data<float>()[i])));
  for (int64_t i = 0; i < want.numel(); ++i) {
    const double w = want.data<float>()[i], g = got.data<float>()[i];
    ASSERT_LE(std::abs(g - w), unit * std::abs(w) + tolerance * largest) << what << " at " << i;
  }
}

class Conv2dCuda : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = cuda_reason(); !why.empty()) GTEST_SKIP() << why;
  }

  static void compare(const Case& v, DType dtype, bool allow_tf32 = false) {
    SCOPED_TRACE(testing::Message() << v << ", " << dtype << (allow_tf32 ? " as tf32" : ""));
    const std::vector<Tensor> want = run(v, dtype, Device::cpu()),
                              got = run(v, dtype, Device::cuda(0), allow_tf32);
    static const char* const kNames[] = {"y", "dx", "dweight", "dbias", "dresidual"};
    for (int i = 0; i < 5; ++i) {
      ASSERT_EQ(got[i].defined(), want[i].defined()) << kNames[i];
      if (!want[i].defined()) continue;
      // A sum near zero may be masked on one device only: bf16 cases mask in the reference too.
      const bool rounded = dtype == DType::bf16 && (i < 2 || i == 4);
      expect_close(got[i], want[i], rounded ? std::ldexp(1, -8) : 0, allow_tf32 ? 2e-3 : 4e-6,
                   kNames[i]);
    }
    const std::vector<Tensor> again = run(v, dtype, Device::cuda(0), allow_tf32);
    for (int i = 0; i < 5; ++i)
      if (got[i].defined())
        EXPECT_EQ(again[i].to_vector<float>(), got[i].to_vector<float>()) << kNames[i];
  }
  static void compare(const Case& v) {
    compare(v, DType::f32);
    compare(v, DType::bf16);
  }
};

Conv2dOptions with(int stride, int padding, int dilation = 1, int groups = 1, bool relu = false) {
  return {stride, padding, dilation, groups, relu};
}

// One to three channels take single elements, even numbers words, multiples of eight whole chunks.
TEST_F(Conv2dCuda, TakesAnyNumberOfChannels) {
  for (int64_t c : {1, 3, 4, 8, 12, 36, 64, 72})
    for (int64_t k : {1, 6, 8, 20, 72}) compare({1, 4, 3, c, k, 3, 3, with(1, 1)});
}

TEST_F(Conv2dCuda, TakesAnyFilterStrideAndPadding) {
  for (int r : {1, 2, 3, 7})
    for (int stride : {1, 2, 3})
      for (int padding : {0, r / 2, r}) {
        compare({2, 7, 9, 8, 8, r, 4 - r < 1 ? r : 4 - r, with(stride, padding)});
        compare({1, 8, 5, 3, 5, r, r, with(stride, padding)});
      }
  for (int stride : {1, 2, 3, 4, 6, 11})
    for (int dilation : {2, 3, 4}) compare({1, 9, 11, 8, 8, 3, 3, with(stride, 2, dilation)});
}

TEST_F(Conv2dCuda, AddsBiasAndResidualBeforeTheRelu) {
  for (int64_t k : {5, 8, 70})
    for (bool bias : {false, true})
      for (bool residual : {false, true})
        for (bool relu : {false, true})
          compare({2, 3, 5, 8, k, 3, 3, with(1, 1, 1, 1, relu), bias, residual});
}

TEST_F(Conv2dCuda, KeepsGroupsApart) {
  compare({1, 5, 4, 16, 32, 3, 3, with(1, 1, 1, 2), true, true});
  compare({2, 5, 4, 12, 6, 3, 3, with(2, 1, 1, 3, true), true, true});
  compare({1, 4, 4, 6, 6, 3, 3, with(1, 1, 1, 6), true});  // depthwise
}

TEST_F(Conv2dCuda, CoversPartialTiles) {
  // 130 and 66 positions, channels and filters: one full tile and a rest in every direction.
  compare({1, 10, 13, 136, 72, 1, 1, with(1, 0), true});
  compare({1, 6, 11, 72, 136, 3, 3, with(1, 1), true, true});
}

TEST_F(Conv2dCuda, TakesOnePixelAndNothing) {
  compare({1, 1, 1, 8, 8, 3, 3, with(1, 1), true});
  compare({1, 1, 1, 1, 1, 1, 1});
  compare({0, 4, 5, 8, 8, 3, 3, with(1, 1, 1, 1, true), true});
  compare({2, 2, 2, 8, 8, 3, 3, with(1, 0), true});                    // no output
  compare({1, 3, 3, 0, 4, 3, 3, with(1, 1, 1, 1, true), true, true});  // no channels
  compare({1, 3, 3, 4, 0, 3, 3, with(1, 1)});                          // no filters
  compare({1, 0, 0, 4, 8, 3, 3, with(1, 2), true});                    // all padding
}

}  // namespace
}  // namespace mixpl
