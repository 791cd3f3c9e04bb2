// Convolutions and their gradients on a GPU (or its emulation) against plain loops in double, over
// every kernel that the sizes select: partial tiles, any run of channels, split sums, empty
// tensors.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "autograd/tape.h"
#include "core/cuda/runtime.h"
#include "core/normals_test.h"
#include "ops/conv2d/conv2d.h"
#include "ops/conv2d/gemm_settings_cuda.h"
#include "ops/registry.h"

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

// y, then the gradients of x, weight, bias and residual.
constexpr int kResults = 5;
const char* const kNames[kResults] = {"y", "dx", "dweight", "dbias", "dresidual"};
using Values = std::vector<double>;

struct Inputs {
  Tensor x, weight, bias, residual, dy;  // on the host, weight and bias in f32, the rest in `dtype`
  Shape shape;                           // of y

  Inputs(const Case& v, DType dtype) {
    const auto rounded = [&](const Shape& s, uint64_t seed) {
      return normals(s, dtype, seed).to(DType::f32);
    };
    x = normals({v.n, v.h, v.w, v.c}, dtype, 1);
    weight = rounded({v.k, v.r, v.s, v.c / v.options.groups}, 2);
    shape = conv2d_shape(x.shape(), weight.shape(), v.options);
    if (v.bias) bias = rounded({v.k}, 3);
    if (v.residual) residual = normals(shape, dtype, 4);
    dy = normals(shape, dtype, 5);
  }
};

// Calls f(element of y, of x, of weight) for every product of the convolution.
template <typename F>
void for_each_product(const Case& v, const Shape& y, F&& f) {
  const Conv2dOptions& o = v.options;
  const int64_t c = v.c / o.groups, k = v.k / o.groups;
  for (int64_t n = 0; n < v.n; ++n)
    for (int64_t p = 0; p < y[1]; ++p)
      for (int64_t q = 0; q < y[2]; ++q)
        for (int64_t r = 0; r < v.r; ++r)
          for (int64_t s = 0; s < v.s; ++s) {
            const int64_t row = p * o.stride - o.padding + r * o.dilation;
            const int64_t column = q * o.stride - o.padding + s * o.dilation;
            if (row < 0 || row >= v.h || column < 0 || column >= v.w) continue;
            for (int64_t i = 0; i < v.k; ++i)
              for (int64_t j = 0; j < c; ++j)
                f(((n * y[1] + p) * y[2] + q) * v.k + i,
                  ((n * v.h + row) * v.w + column) * v.c + i / k * c + j,
                  ((i * v.r + r) * v.s + s) * c + j);
          }
}

// `active` says where the ReLU lets the gradient pass: as in the result under test, so that sums
// near zero do not decide.
std::vector<Values> truth(const Case& v, const Inputs& in, const Tensor& active) {
  const auto values = [](const Tensor& t) {
    return t.defined() ? t.to(DType::f32).to_vector<float>() : std::vector<float>();
  };
  const auto x = values(in.x), weight = values(in.weight), bias = values(in.bias),
             residual = values(in.residual);
  auto dy = values(in.dy);
  Values y(dy.size()), dx(x.size()), dweight(weight.size()), dbias(bias.size());
  for_each_product(v, in.shape, [&](int64_t to, int64_t from, int64_t by) {
    y[to] += double(x[from]) * weight[by];
  });
  for (size_t i = 0; i < y.size(); ++i) {
    y[i] += (v.bias ? bias[i % v.k] : 0) + (v.residual ? residual[i] : 0);
    if (!v.options.relu) continue;
    y[i] = std::max(y[i], 0.0);
    if (!(active.data<float>()[i] > 0)) dy[i] = 0;
  }
  for_each_product(v, in.shape, [&](int64_t to, int64_t from, int64_t by) {
    dx[from] += double(dy[to]) * weight[by];
    dweight[by] += double(dy[to]) * x[from];
  });
  if (v.bias)
    for (size_t i = 0; i < dy.size(); ++i) dbias[i % v.k] += dy[i];
  return {y, dx, dweight, dbias, v.residual ? Values(dy.begin(), dy.end()) : Values()};
}

// On the host, as f32; undefined where there is no such input.
std::vector<Tensor> run(const Case& v, const Inputs& in, bool allow_tf32) {
  const Device gpu = Device::cuda(0);
  Tape tape;
  Context context;
  context.device = gpu;
  context.allow_tf32 = allow_tf32;
  context.tape = &tape;
  ContextScope scope(context);
  const auto input = [&](const Tensor& t) {
    return t.defined() ? t.to(gpu).set_requires_grad(true) : Tensor();
  };
  const Tensor x = input(in.x), weight = input(in.weight), bias = input(in.bias),
               residual = input(in.residual);
  const Tensor y = conv2d(x, weight, bias, v.options, residual);
  tape.backward({y}, {in.dy.to(gpu)});
  std::vector<Tensor> results{y};
  for (const Tensor& t : {x, weight, bias, residual}) results.push_back(t.defined() ? t.grad() : t);
  for (Tensor& t : results)
    if (t.defined()) t = t.to(Device::cpu()).to(DType::f32);
  return results;
}

// `unit` of the value for its rounding, `tolerance` of the largest for the sum.
void expect_close(const Tensor& got, const Values& want, double unit, double tolerance,
                  const char* what) {
  ASSERT_EQ(got.numel(), static_cast<int64_t>(want.size())) << what;
  double largest = 1e-30;
  for (double w : want) largest = std::max(largest, std::abs(w));
  for (size_t i = 0; i < want.size(); ++i) {
    const double error = std::abs(got.data<float>()[i] - want[i]);
    ASSERT_LE(error, unit * std::abs(want[i]) + tolerance * largest) << what << " at " << i;
  }
}

class Conv2dCuda : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = cuda_reason(); !why.empty()) GTEST_SKIP() << why;
  }
  void TearDown() override {
    cuda::plan::multiprocessors = kUsual;
    cuda::plan::warpgroups = kWarpgroups;
    cuda::plan::bulk_copies = kBulkCopies;
    cuda::plan::bulk_columns = kBulkColumns;
    cuda::plan::pixel_pairs = kPixelPairs;
  }
  const int64_t kUsual = cuda::plan::multiprocessors;
  const bool kWarpgroups = cuda::plan::warpgroups, kBulkCopies = cuda::plan::bulk_copies,
             kPixelPairs = cuda::plan::pixel_pairs;
  const int64_t kBulkColumns = cuda::plan::bulk_columns;

  static void compare(const Case& v, DType dtype, bool allow_tf32 = false) {
    SCOPED_TRACE(testing::Message() << v << ", " << dtype << (allow_tf32 ? " as tf32" : ""));
    const Inputs in(v, dtype);
    const std::vector<Tensor> got = run(v, in, allow_tf32), again = run(v, in, allow_tf32);
    const std::vector<Values> want = truth(v, in, got[0]);
    for (int i = 0; i < kResults; ++i) {
      if (!got[i].defined()) continue;
      const bool rounded = dtype == DType::bf16 && (i < 2 || i == 4);
      expect_close(got[i], want[i], rounded ? std::ldexp(1, -8) : 0, allow_tf32 ? 1e-3 : 2e-6,
                   kNames[i]);
      EXPECT_EQ(again[i].to_vector<float>(), got[i].to_vector<float>()) << kNames[i];
    }
  }
  static void compare(const Case& v) {
    compare(v, DType::f32);
    compare(v, DType::bf16);
  }
};

Conv2dOptions with(int stride, int padding, int dilation = 1, int groups = 1, bool relu = false) {
  return {stride, padding, dilation, groups, relu};
}

// Odd numbers of channels are copied element by element, even ones by words, multiples of eight (in
// f32 of four) by chunks.
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

// 130 positions, 136 or 72 channels and filters: full tiles and a rest, of every size and type.
// With few multiprocessors large tiles pay, with many small ones, and long sums are split.
TEST_F(Conv2dCuda, CoversEveryTile) {
  for (int64_t multiprocessors : {1, 3, 132}) {
    cuda::plan::multiprocessors = multiprocessors;
    for (const auto& [c, k] : {std::pair{136, 72}, {72, 136}, {32, 40}}) {
      const Case one{1, 10, 13, c, k, 1, 1, with(1, 0), true},
          nine{1, 6, 11, c, k, 3, 3, with(2, 1), true, true};
      for (const Case& v : {one, nine}) {
        compare(v);
        compare(v, DType::f32, true);
      }
    }
  }
}

// Only bf16, and only where whole tiles of 128 by 128 pay.
TEST_F(Conv2dCuda, MultipliesByWarpgroups) {
  cuda::plan::multiprocessors = 1;
  cuda::plan::warpgroups = true;
  cuda::plan::bulk_copies = false;
  for (const auto& [c, k] : {std::pair{136, 72}, {72, 136}, {128, 128}}) {
    compare({1, 10, 13, c, k, 1, 1, with(1, 0), true}, DType::bf16);
    compare({1, 10, 13, c, k, 1, 1, with(2, 0), true}, DType::bf16);  // residues without taps
    compare({2, 9, 11, c, k, 3, 3, with(1, 1, 1, 1, true), true, true}, DType::bf16);
    compare({2, 17, 13, c, k, 3, 3, with(2, 1), true}, DType::bf16);
  }
  compare({1, 9, 8, 144, 160, 3, 3, with(1, 1, 1, 2), true}, DType::bf16);
  compare({1, 9, 15, 72, 131, 3, 3, with(1, 1, 1, 1, true), true, true}, DType::bf16);
  compare({1, 7, 9, 0, 136, 3, 3, with(1, 1), true}, DType::bf16);
  cuda::plan::multiprocessors = 4;  // sums are split
  compare({1, 9, 15, 136, 136, 3, 3, with(1, 1, 1, 1, true), true, true}, DType::bf16);
}

// As many tiles down as blocks of a pair, and one more; every tap, stride and padding; parts of a
// sum; channels that fill no 64.
TEST_F(Conv2dCuda, CopiesTilesByHardware) {
  if (cuda::is_emulated() || !cuda::has_warpgroups()) GTEST_SKIP() << "no such hardware";
  cuda::plan::warpgroups = false;  // nothing to choose instead
  cuda::plan::bulk_copies = true;
  cuda::plan::bulk_columns = 256;
  for (int64_t multiprocessors : {1, 32}) {
    cuda::plan::multiprocessors = multiprocessors;
    for (const auto& [c, k] : {std::pair{192, 136}, {136, 192}, {256, 256}, {192, 512}}) {
      compare({1, 10, 13, c, k, 1, 1, with(1, 0), true}, DType::bf16);
      compare({1, 15, 21, c, k, 1, 1, with(1, 0), true, true}, DType::bf16);
      compare({2, 9, 17, c, k, 3, 3, with(1, 1, 1, 1, true), true, true}, DType::bf16);
    }
    compare({2, 37, 25, 192, 192, 3, 3, with(2, 1), true}, DType::bf16);
    compare({1, 33, 31, 192, 192, 1, 1, with(2, 0)}, DType::bf16);
    compare({3, 9, 17, 192, 192, 3, 5, with(1, 2), true}, DType::bf16);
    compare({1, 19, 17, 192, 192, 5, 1, with(1, 0)}, DType::bf16);
    compare({2, 13, 15, 192, 192, 3, 3, with(1, 2, 2), true}, DType::bf16);
    compare({2, 31, 29, 192, 192, 3, 3, with(3, 1), true}, DType::bf16);
    compare({1, 10, 13, 192, 819, 1, 1, with(1, 0), true}, DType::bf16);
  }
}

// Tiles of 256 by 128 and 128 by 64: one, a pair, more than the card takes at once; sums of one
// step and of many; partial rows, columns and channels, some of no whole chunks.
TEST_F(Conv2dCuda, CopiesNarrowTilesByHardware) {
  if (cuda::is_emulated() || !cuda::has_warpgroups()) GTEST_SKIP() << "no such hardware";
  cuda::plan::warpgroups = false;
  cuda::plan::bulk_copies = true;
  for (int64_t columns : {128, 64}) {
    cuda::plan::bulk_columns = columns;
    for (int64_t multiprocessors : {1, 4}) {
      cuda::plan::multiprocessors = multiprocessors;
      for (const auto& [c, k] : {std::pair{64, 64}, {72, 104}, {128, 128}, {200, 136}}) {
        compare({1, 19, 21, c, k, 1, 1, with(1, 0), true}, DType::bf16);
        compare({2, 17, 23, c, k, 1, 1, with(1, 0, 1, 1, true), true, true}, DType::bf16);
        compare({2, 13, 27, c, k, 3, 3, with(1, 1, 1, 1, true), true, true}, DType::bf16);
      }
      compare({3, 27, 25, 64, 64, 3, 3, with(2, 1), true}, DType::bf16);
      compare({1, 31, 33, 128, 64, 1, 1, with(2, 0)}, DType::bf16);
      compare({2, 15, 17, 64, 72, 3, 5, with(1, 2), false, true}, DType::bf16);
      compare({2, 18, 15, 72, 64, 3, 3, with(1, 2, 2), true}, DType::bf16);
      compare({1, 20, 23, 128, 131, 3, 3, with(1, 1, 1, 1, true), true}, DType::bf16);
      compare({1, 20, 23, 64, 131, 1, 1, with(1, 0), true, true}, DType::bf16);
    }
    cuda::plan::multiprocessors = 16;  // sums are split
    compare({1, 20, 23, 256, 128, 3, 3, with(1, 1, 1, 1, true), true, true}, DType::bf16);
    compare({1, 20, 23, 128, 256, 3, 3, with(1, 1), true}, DType::bf16);
    cuda::plan::multiprocessors = kUsual;
    compare({3, 139, 167, 64, 64, 1, 1, with(1, 0, 1, 1, true), true, true}, DType::bf16);
    compare({5, 73, 101, 64, 256, 1, 1, with(1, 0, 1, 1, true), true, true}, DType::bf16);
  }
}

// Their rows are no whole chunks.
TEST_F(Conv2dCuda, StoresAnyNumberOfFilters) {
  for (int64_t k : {17, 27, 36, 131}) {
    compare({2, 5, 7, 8, k, 3, 3, with(1, 1, 1, 1, true), true});
    compare({1, 9, 7, 24, k, 1, 1, with(2, 0)});
  }
}

// Odd channels, even widths and strides; others are convolved as ever.
TEST_F(Conv2dCuda, TakesPixelsInPairs) {
  cuda::plan::pixel_pairs = true;
  for (int s : {1, 2, 3, 7})
    for (int padding : {0, 1, 2, 3})
      compare({2, 9, 12, 3, 8, s, s, with(2, padding, 1, 1, true), true}, DType::bf16);
  compare({1, 14, 18, 3, 64, 7, 7, with(2, 3, 1, 1, true), true}, DType::bf16);
  compare({1, 9, 16, 1, 5, 3, 5, with(4, 2), false, true}, DType::bf16);
  compare({1, 9, 13, 3, 8, 7, 7, with(2, 3)}, DType::bf16);        // an odd width
  compare({1, 9, 12, 3, 8, 3, 3, with(1, 1)}, DType::bf16);        // stride 1
  compare({1, 9, 12, 3, 8, 3, 3, with(2, 2, 2)}, DType::bf16);     // dilation
  compare({1, 9, 12, 6, 8, 3, 3, with(2, 1, 1, 2)}, DType::bf16);  // groups
  compare({1, 9, 12, 3, 8, 7, 7, with(2, 3)}, DType::f32);
}

// Gradients of these filters are padded to whole chunks, as those of a head's scores and boxes.
TEST_F(Conv2dCuda, TakesAnyNumberOfFilters) {
  for (int64_t k : {1, 27, 36}) {
    compare({2, 5, 4, 16, k, 3, 3, with(1, 1, 1, 1, true), true, true});
    compare({1, 7, 6, 24, k, 3, 3, with(2, 1), true});
    compare({1, 4, 5, 8, k, 1, 1}, DType::f32, true);
  }
  compare({1, 3, 4, 8, 819, 3, 3, with(1, 1), true});
  compare({1, 5, 4, 16, 10, 3, 3, with(1, 1, 1, 2), true});  // groups stay as they are
  cuda::plan::multiprocessors = 1;
  for (bool warpgroups : {false, true}) {
    cuda::plan::warpgroups = warpgroups;
    compare({1, 10, 13, 136, 131, 3, 3, with(1, 1), true}, DType::bf16);
  }
}

// A gradient by itself pads for itself.
TEST_F(Conv2dCuda, GivesTheSameGradientsOneByOne) {
  const Case v{2, 5, 4, 16, 27, 3, 3, with(1, 1)};
  const Inputs in(v, DType::bf16);
  const std::vector<Tensor> both = run(v, in, false);
  const Device gpu = Device::cuda(0);
  const std::vector<Tensor> inputs{in.x.to(gpu), in.weight.to(gpu), in.dy.to(gpu)};
  const Options options(R"({"padding": 1})", "conv2d");
  const auto alone = [&](const char* op) {
    const Tensor result = find_op(op)(inputs, options).front();
    return result.to(Device::cpu()).to(DType::f32).to_vector<float>();
  };
  EXPECT_EQ(alone("conv2dDataGradient"), both[1].to_vector<float>());
  EXPECT_EQ(alone("conv2dWeightGradient"), both[2].to_vector<float>());
}

TEST_F(Conv2dCuda, TakesOddChannelsAsTf32) {
  for (int64_t c : {1, 3, 6})
    for (int stride : {1, 2})
      compare({1, 5, 4, c, 10 - c, 3, 3, with(stride, 1)}, DType::f32, true);
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
