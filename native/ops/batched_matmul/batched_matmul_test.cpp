// Every instruction set's products against plain sums in double, with each factor turned.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/avx512.h"
#include "core/normals_test.h"
#include "ops/batched_matmul/batched_matmul_kernels.h"

namespace mixpl {
namespace {

struct Sizes {
  int64_t batches, rows, depth, columns;
};

BatchedFactor factor(int64_t batches, int64_t rows, int64_t columns, bool turned, DType dtype,
                     uint64_t seed) {
  const Shape shape = turned ? Shape{batches, columns, rows} : Shape{batches, rows, columns};
  return {normals(shape, dtype, seed), turned};
}

// The number at (row, column) of a batch.
double at(const BatchedFactor& f, const std::vector<float>& values, int64_t batch, int64_t row,
          int64_t column) {
  const int64_t width = f.matrices.size(2), first = batch * f.rows() * f.columns();
  return values[first + (f.turned ? column * width + row : row * width + column)];
}

void compare(cpu::batched_matmul::Product product, const Sizes& z, DType dtype) {
  for (int turned = 0; turned < 3; ++turned) {
    SCOPED_TRACE(testing::Message() << z.batches << " of " << z.rows << " x " << z.depth << " x "
                                    << z.columns << ", " << dtype << ", " << turned);
    const BatchedFactor a = factor(z.batches, z.rows, z.depth, turned == 1, dtype, 1);
    const BatchedFactor b = factor(z.batches, z.depth, z.columns, turned == 2, dtype, 2);
    Tensor y = Tensor::empty({z.batches, z.rows, z.columns}, dtype);
    product(a, b, y);
    const std::vector<float> left = a.matrices.to(DType::f32).to_vector<float>(),
                             right = b.matrices.to(DType::f32).to_vector<float>(),
                             got = y.to(DType::f32).to_vector<float>();
    const double unit = dtype == DType::bf16 ? std::ldexp(1, -8) : 0;
    for (int64_t n = 0, i = 0; n < z.batches; ++n)
      for (int64_t row = 0; row < z.rows; ++row)
        for (int64_t column = 0; column < z.columns; ++column, ++i) {
          double want = 0, size = 0;
          for (int64_t k = 0; k < z.depth; ++k) {
            const double term = at(a, left, n, row, k) * at(b, right, n, k, column);
            want += term;
            size += std::abs(term);
          }
          ASSERT_LE(std::abs(got[i] - want), unit * std::abs(want) + 2e-6 * size) << i;
        }
  }
}

void compare_all(cpu::batched_matmul::Product product,
                 const std::vector<DType>& types = {DType::f32, DType::bf16}) {
  for (DType dtype : types)
    for (const Sizes& z : {Sizes{1, 1, 1, 1}, Sizes{3, 7, 5, 3}, Sizes{2, 49, 40, 64},
                           Sizes{2, 16, 49, 32}, Sizes{1, 115, 17, 35}, Sizes{2, 15, 33, 48}})
      compare(product, z, dtype);
}

TEST(BatchedMatmul, IsTheSumsOfThePortableKernels) {
  compare_all(cpu::batched_matmul::portable_product);
}
#if defined(__x86_64__)
TEST(BatchedMatmul, IsTheSumsWithAvx2) { compare_all(cpu::batched_matmul::avx2_product); }
TEST(BatchedMatmul, IsTheSumsWithAvx512) {
  if (!has_avx512_bf16()) GTEST_SKIP() << "this processor has no AVX-512 with bf16";
  compare_all(cpu::batched_matmul::avx512_product, {DType::f32});
  compare_all(cpu::batched_matmul::avx512_pairs_product, {DType::bf16});
}
#endif

}  // namespace
}  // namespace mixpl
