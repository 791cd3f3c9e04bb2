// Batched products on a GPU (or its emulation) against the CPU's, with the tiles that sizes of the
// other tests do not select.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/context.h"
#include "core/cuda/runtime.h"
#include "core/launch.h"
#include "core/normals_test.h"
#include "ops/batched_matmul/batched_matmul.h"
#include "ops/conv2d/gemm_settings_cuda.h"

namespace mixpl {
namespace {

class BatchedMatmulCuda : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = cuda_reason(); !why.empty()) GTEST_SKIP() << why;
    cuda::plan::multiprocessors = 1;  // every tile pays
  }
  void TearDown() override { cuda::plan::multiprocessors = kUsual; }
  const int64_t kUsual = cuda::plan::multiprocessors;

  static Tensor product(const BatchedFactor& a, const BatchedFactor& b, Device device,
                        bool allow_tf32 = false) {
    Context context;
    context.device = device;
    context.allow_tf32 = allow_tf32;
    ContextScope scope(context);
    Tensor y =
        Tensor::empty({a.matrices.size(0), a.rows(), b.columns()}, a.matrices.dtype(), device);
    const BatchedFactor left{a.matrices.to(device), a.turned},
        right{b.matrices.to(device), b.turned};
    MIXPL_DISPATCH(device, batched_product, left, right, y);
    return y.to(Device::cpu()).to(DType::f32);
  }

  static void compare(int64_t batches, int64_t rows, int64_t depth, int64_t columns, DType dtype,
                      bool allow_tf32 = false) {
    for (int turned = 0; turned < 3; ++turned) {
      SCOPED_TRACE(testing::Message() << batches << " of " << rows << " x " << depth << " x "
                                      << columns << ", " << dtype << ", " << turned);
      const Shape left = turned == 1 ? Shape{batches, depth, rows} : Shape{batches, rows, depth};
      const Shape right =
          turned == 2 ? Shape{batches, columns, depth} : Shape{batches, depth, columns};
      const BatchedFactor a{normals(left, dtype, 1), turned == 1},
          b{normals(right, dtype, 2), turned == 2};
      const std::vector<float> want = product(a, b, Device::cpu()).to_vector<float>(),
                               got = product(a, b, Device::cuda(0), allow_tf32).to_vector<float>();
      float largest = 0;
      for (float v : want) largest = std::max(largest, std::abs(v));
      const float unit = dtype == DType::bf16 ? std::ldexp(1.0f, -7) : 0.0f;
      const float rest = (allow_tf32 ? 1e-3f : 2e-6f) * largest;
      for (size_t i = 0; i < want.size(); ++i)
        ASSERT_LE(std::abs(got[i] - want[i]), unit * std::abs(want[i]) + rest) << i;
    }
  }
};

TEST_F(BatchedMatmulCuda, TakesLargeTiles) {
  compare(2, 136, 72, 152, DType::bf16);
  compare(1, 72, 40, 72, DType::bf16);
}

TEST_F(BatchedMatmulCuda, TakesTf32) {
  compare(2, 49, 64, 72, DType::f32, true);
  compare(3, 7, 19, 5, DType::f32, true);
}

TEST_F(BatchedMatmulCuda, SplitsLongSums) {
  cuda::plan::multiprocessors = kUsual;
  compare(1, 20, 1500, 24, DType::f32);
  compare(1, 20, 1500, 24, DType::bf16);
}

}  // namespace
}  // namespace mixpl
