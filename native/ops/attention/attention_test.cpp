// All instruction sets compute the same; what the ops' own tests run is the best that there is.
#include <gtest/gtest.h>

#include <cmath>

#include "core/avx512.h"
#include "core/philox.h"
#include "ops/attention/attention_kernels.h"

// The portable loops, too, which no library for this processor has.
#define MIXPL_VECTOR_LANES 8
#define MIXPL_SIMD
#define MIXPL_SIMD_NAME portable_lanes
#define MIXPL_SIMD_PORTABLE
#include "ops/attention/simd/backward.h"
#include "ops/attention/simd/forward.h"

namespace mixpl {
namespace {

using cpu::attention::Kernels;

Tensor normals(const Shape& shape, uint64_t stream, DType dtype = DType::f32) {
  Tensor t = Tensor::empty(shape, DType::f32);
  const Philox random(7, stream);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = random.normal(i);
  return t.to(dtype);
}

struct Sizes {
  int64_t images, queries, keys, heads, depth, value_depth;
  int64_t biases, masks;
};

AttentionCall call_of(const Sizes& s, DType dtype) {
  AttentionCall c;
  c.images = s.images, c.queries = s.queries, c.keys = s.keys, c.heads = s.heads;
  c.depth = s.depth, c.value_depth = s.value_depth;
  c.scale = 1 / std::sqrt(static_cast<float>(s.depth));
  c.q = {normals({s.images, s.queries, s.heads * s.depth}, 1, dtype), 0};
  c.k = {normals({s.images, s.keys, s.heads * s.depth}, 2, dtype), 0};
  c.v = {normals({s.images, s.keys, s.heads * s.value_depth}, 3, dtype), 0};
  if (s.biases) c.bias = normals({s.biases, s.heads, s.queries, s.keys}, 4);
  if (s.masks) {
    c.mask = Tensor::zeros({s.masks, 1, s.keys}, DType::u8);
    for (int64_t i = 0; i < c.mask.numel(); ++i) c.mask.data<uint8_t>()[i] = i % 3 == 1;
  }
  return c;
}

// Output, then the gradients that there are.
std::vector<std::vector<float>> run(const Kernels& kernels, const AttentionCall& c) {
  const DType dtype = c.q.tensor.dtype();
  Tensor out = Tensor::empty({c.images, c.queries, c.heads * c.value_depth}, dtype);
  Tensor log_sums = Tensor::empty({c.images, c.heads, c.queries}, DType::f32);
  kernels.forward(c, out, log_sums);
  AttentionGradients g;
  g.dq = {Tensor::empty_like(c.q.tensor), 0};
  g.dk = {Tensor::empty_like(c.k.tensor), 0};
  g.dv = {Tensor::empty_like(c.v.tensor), 0};
  if (c.bias.defined()) g.dbias = Tensor::empty_like(c.bias);
  kernels.backward(c, normals(out.shape(), 5, dtype), log_sums, g);
  std::vector<std::vector<float>> values;
  for (const Tensor& t : {out, g.dq.tensor, g.dk.tensor, g.dv.tensor, g.dbias})
    if (t.defined()) values.push_back(t.to(DType::f32).to_vector<float>());
  return values;
}

void expect_near(const std::vector<std::vector<float>>& got,
                 const std::vector<std::vector<float>>& want, float tolerance) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t t = 0; t < want.size(); ++t) {
    ASSERT_EQ(got[t].size(), want[t].size());
    float largest = 0;
    for (float w : want[t]) largest = std::max(largest, std::abs(w));
    for (size_t i = 0; i < want[t].size(); ++i)
      ASSERT_LE(std::abs(got[t][i] - want[t][i]), tolerance * largest) << t << ", " << i;
  }
}

TEST(AttentionKernels, InstructionSetsAgree) {
  const Kernels portable{cpu::attention::forward, cpu::attention::backward};
  for (const Sizes& s : {Sizes{2, 50, 67, 2, 32, 32, 0, 2}, Sizes{1, 7, 5, 3, 5, 9, 1, 0},
                         Sizes{4, 49, 49, 2, 32, 32, 2, 2}, Sizes{1, 1, 1, 1, 1, 1, 0, 0},
                         Sizes{1, 300, 33, 1, 64, 24, 1, 1}, Sizes{40, 3, 20, 1, 17, 8, 1, 0}})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const AttentionCall c = call_of(s, dtype);
      const auto want = run(portable, c);
      // Where sums in f32 differ by a bit, rounding to bf16 may go the other way.
      const float tolerance = dtype == DType::f32 ? 3e-6f : 5e-3f;
#if defined(__x86_64__)
      expect_near(run(cpu::attention::avx2_kernels(), c), want, tolerance);
      if (has_avx512_bf16()) expect_near(run(cpu::attention::avx512_kernels(), c), want, tolerance);
#endif
    }
}

}  // namespace
}  // namespace mixpl
