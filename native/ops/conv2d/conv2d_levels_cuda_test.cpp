// One launch over several maps against one call after the other, which has tests of its own.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "autograd/tape.h"
#include "core/cuda/runtime.h"
#include "core/normals_test.h"
#include "ops/conv2d/conv2d.h"
#include "ops/conv2d/gemm_settings_cuda.h"

namespace mixpl {
namespace {

struct Case {
  std::vector<Shape> maps;  // [N, H, W, C]
  int64_t filters;
  int kernel;
  Conv2dOptions options = {};
  bool bias = true;
  bool residual = false;  // one per map
};

Tensor on_gpu(const Shape& shape, DType dtype, uint64_t seed) {
  return normals(shape, dtype, seed).to(Device::cuda(0));
}

/// Outputs and gradients of the maps, then gradients of weight and bias, on the host in f32.
struct Results {
  std::vector<Tensor> maps, shared;
};

Results run(const Case& v, DType dtype, bool together) {
  Tape tape;
  Context context;
  context.device = Device::cuda(0);
  context.tape = &tape;
  ContextScope scope(context);
  const auto leaf = [](Tensor t) { return t.set_requires_grad(true); };
  std::vector<Tensor> xs, dys, residuals;
  const int64_t c = v.maps[0][3] / v.options.groups;
  const Tensor weight = leaf(on_gpu({v.filters, v.kernel, v.kernel, c}, DType::f32, 1));
  const Tensor bias = v.bias ? leaf(on_gpu({v.filters}, DType::f32, 2)) : Tensor();
  for (const Shape& shape : v.maps) {
    const Shape out = conv2d_shape(shape, weight.shape(), v.options);
    xs.push_back(leaf(on_gpu(shape, dtype, 10 + xs.size())));
    dys.push_back(on_gpu(out, dtype, 100 + dys.size()));
    if (v.residual) residuals.push_back(leaf(on_gpu(out, dtype, 200 + dys.size())));
  }
  std::vector<Tensor> ys;
  if (together)
    ys = conv2d(xs, weight, bias, v.options, residuals);
  else
    for (size_t i = 0; i < xs.size(); ++i)
      ys.push_back(conv2d(xs[i], weight, bias, v.options, v.residual ? residuals[i] : Tensor()));
  const std::vector<Tensor> values = ys;
  tape.backward(ys, dys);
  Results results;
  const auto keep = [](std::vector<Tensor>& to, const Tensor& t) {
    to.push_back(t.to(Device::cpu()).to(DType::f32));
  };
  for (const Tensor& y : values) keep(results.maps, y);
  for (const Tensor& x : xs) keep(results.maps, x.grad());
  for (const Tensor& residual : residuals) keep(results.maps, residual.grad());
  keep(results.shared, weight.grad());
  if (v.bias) keep(results.shared, bias.grad());
  return results;
}

void expect_close(const Tensor& got, const Tensor& want, double relative, double absolute) {
  ASSERT_EQ(got.shape(), want.shape());
  double largest = 0;
  for (int64_t i = 0; i < want.numel(); ++i)
    largest = std::max<double>(largest, std::abs(want.data<float>()[i]));
  for (int64_t i = 0; i < want.numel(); ++i) {
    const double w = want.data<float>()[i];
    ASSERT_LE(std::abs(got.data<float>()[i] - w), relative * std::abs(w) + absolute * largest)
        << "at " << i;
  }
}

class Conv2dLevelsCuda : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = cuda_reason(); !why.empty()) GTEST_SKIP() << why;
  }
  void TearDown() override {
    cuda::plan::multiprocessors = kUsual;
    cuda::plan::warpgroups = kWarpgroups;
    cuda::plan::bulk_copies = kBulkCopies;
    cuda::plan::bulk_columns = kBulkColumns;
  }
  const int64_t kUsual = cuda::plan::multiprocessors;
  const bool kWarpgroups = cuda::plan::warpgroups, kBulkCopies = cuda::plan::bulk_copies;
  const int64_t kBulkColumns = cuda::plan::bulk_columns;

  static void compare(const Case& v, DType dtype) {
    SCOPED_TRACE(testing::Message() << v.maps.size() << " maps, the first " << v.maps[0] << ", "
                                    << v.filters << " filters, " << dtype);
    const Results got = run(v, dtype, true), again = run(v, dtype, true),
                  want = run(v, dtype, false);
    // Tiles and splits follow from the size: sums of another order, rounded once more.
    const double unit = dtype == DType::bf16 ? std::ldexp(1, -7) : 0;
    for (size_t i = 0; i < want.maps.size(); ++i) {
      expect_close(got.maps[i], want.maps[i], unit, 2e-6);
      EXPECT_EQ(got.maps[i].to_vector<float>(), again.maps[i].to_vector<float>());
    }
    for (size_t i = 0; i < want.shared.size(); ++i) {
      expect_close(got.shared[i], want.shared[i], 0, 2e-6);
      EXPECT_EQ(got.shared[i].to_vector<float>(), again.shared[i].to_vector<float>());
    }
  }
  static void compare(const Case& v) {
    compare(v, DType::f32);
    compare(v, DType::bf16);
  }
};

std::vector<Shape> pyramid(int64_t n, int64_t c) {
  return {{n, 9, 13, c}, {n, 5, 7, c}, {n, 3, 4, c}, {n, 2, 2, c}, {n, 1, 1, c}};
}
Conv2dOptions with(int stride, int padding, int groups = 1, bool relu = false) {
  return {stride, padding, 1, groups, relu};
}

TEST_F(Conv2dLevelsCuda, GivesEveryLevelItsOwn) {
  for (int64_t c : {8, 24})
    for (int64_t k : {8, 20}) compare({pyramid(2, c), k, 3, with(1, 1, 1, true)});
  compare({pyramid(1, 8), 16, 1, with(1, 0), false});
}

// As batches of different sizes are in a backbone.
TEST_F(Conv2dLevelsCuda, TakesMapsOfAnyNumberOfImages) {
  const auto batches = [](int64_t c) {
    return std::vector<Shape>{{1, 9, 13, c}, {4, 8, 6, c}, {2, 13, 5, c}};
  };
  for (int64_t multiprocessors : {1, 132}) {
    cuda::plan::multiprocessors = multiprocessors;
    for (int kernel : {1, 3})
      for (int stride : {1, 2})
        for (bool relu : {false, true}) {
          Case v{batches(24), 40, kernel, with(stride, kernel / 2, 1, relu)};
          v.residual = relu;
          compare(v);
        }
    compare({batches(72), 136, 3, with(1, 1)});  // more than a tile's
    compare({batches(3), 16, 7, with(2, 3, 1, true)});
    Case odd{batches(8), 20, 3, with(1, 1, 1, true)};
    odd.residual = true;
    compare(odd);
  }
}

TEST_F(Conv2dLevelsCuda, TakesAnyNumberOfChannels) {
  for (int64_t c : {1, 3, 6})
    for (int64_t k : {1, 9, 36}) compare({pyramid(1, c), k, 3, with(1, 1)});
}

TEST_F(Conv2dLevelsCuda, TakesAnyNumberOfFilters) {
  for (int64_t k : {1, 27, 36}) compare({pyramid(2, 16), k, 3, with(1, 1)});
  compare({pyramid(1, 8), 819, 3, with(1, 1)});
  compare({pyramid(1, 24), 27, 3, with(2, 1, 1, true)});
  compare({{{1, 5, 4, 8}, {1, 2, 2, 8}, {1, 3, 3, 8}}, 27, 3, with(1, 0)});  // one without output
}

TEST_F(Conv2dLevelsCuda, TakesStridesAndGroups) {
  compare({pyramid(2, 16), 8, 3, with(2, 1, 2, true)});
  compare({pyramid(1, 8), 8, 3, with(3, 1)});
}

TEST_F(Conv2dLevelsCuda, CoversEveryTile) {
  for (int64_t multiprocessors : {1, 3, 132}) {
    cuda::plan::multiprocessors = multiprocessors;
    for (const auto& [c, k] : {std::pair{136, 72}, {72, 136}})
      compare({pyramid(1, c), k, 3, with(1, 1, 1, true)});
  }
}

TEST_F(Conv2dLevelsCuda, MultipliesByWarpgroups) {
  cuda::plan::multiprocessors = 1;
  cuda::plan::warpgroups = true;
  cuda::plan::bulk_copies = false;
  for (const auto& [c, k] : {std::pair{136, 72}, {72, 136}, {128, 128}})
    compare({pyramid(2, c), k, 3, with(1, 1, 1, true)}, DType::bf16);
}

// A pair of blocks may belong to two levels.
TEST_F(Conv2dLevelsCuda, CopiesTilesByHardware) {
  if (cuda::is_emulated() || !cuda::has_warpgroups()) GTEST_SKIP() << "no such hardware";
  cuda::plan::warpgroups = false;  // nothing to choose instead
  cuda::plan::bulk_copies = true;
  for (int64_t columns : {256, 128, 64}) {
    cuda::plan::bulk_columns = columns;
    for (int64_t multiprocessors : {1, 16}) {
      cuda::plan::multiprocessors = multiprocessors;
      for (const auto& [c, k] : {std::pair{192, 136}, {256, 256}, {192, 520}})
        compare({pyramid(2, c), k, 3, with(1, 1, 1, true)}, DType::bf16);
    }
  }
}

TEST_F(Conv2dLevelsCuda, TakesNothing) {
  compare({{{1, 3, 4, 8}}, 8, 3, with(1, 1)});
  compare({{{0, 3, 4, 8}, {0, 2, 2, 8}}, 8, 3, with(1, 1, 1, true)});
  // A map without an output among others, all padding, no channels.
  compare({{{1, 5, 4, 8}, {1, 2, 2, 8}, {1, 3, 3, 8}}, 8, 3, with(1, 0)});
  compare({{{1, 2, 3, 8}, {1, 0, 0, 8}}, 8, 3, with(1, 2)});
  compare({{{1, 2, 3, 0}, {1, 1, 1, 0}}, 4, 3, with(1, 1, 1, true)});
}

// As heads of several batches have: gradients of filters are sums over all launches.
TEST_F(Conv2dLevelsCuda, TakesMoreMapsThanALaunch) {
  std::vector<Shape> maps;
  for (size_t level = 0; level < 5; ++level)
    for (int64_t n : {1, 4, 1}) maps.push_back(pyramid(n, 24)[level]);
  ASSERT_GT(maps.size(), size_t{kMostConvLevels});
  for (int64_t multiprocessors : {1, 132}) {
    cuda::plan::multiprocessors = multiprocessors;
    Case v{maps, 20, 3, with(1, 1, 1, true)};
    compare(v);
    v.residual = true;
    compare(v);
  }
}

}  // namespace
}  // namespace mixpl
