#include "core/context.h"
#include "core/cuda/packs.h"
#include "ops/conv2d/filter_place_cuda.h"
#include "ops/fold_batch_norm/fold_batch_norm.h"
#include "ops/fold_batch_norm/fold_batch_norm_math.h"

namespace mixpl::cuda {
namespace {

constexpr int kThreads = 256;

// Pointers may be null as the tensors may be undefined.
struct Norms {
  const float *weight, *gamma, *beta, *mean, *variance;
  int64_t per;  // elements of a filter
  float eps;
};

template <int N>
MIXPL_DEVICE void load_floats(const float* p, float (&values)[N]) {
  constexpr int kWidth = N < 4 ? N : 4;
#pragma unroll
  for (int at = 0; at < N; at += kWidth) {
    const Vec<float, kWidth> v = load_vec<float, kWidth>(p + at);
#pragma unroll
    for (int n = 0; n < kWidth; ++n) values[at + n] = v[n];
  }
}
template <int N>
MIXPL_DEVICE void store_floats(float* p, const float (&values)[N]) {
  constexpr int kWidth = N < 4 ? N : 4;
#pragma unroll
  for (int at = 0; at < N; at += kWidth) {
    Vec<float, kWidth> v;
#pragma unroll
    for (int n = 0; n < kWidth; ++n) v[n] = values[at + n];
    store_vec(p + at, v);
  }
}

struct Fold {
  Norms v;
  float *folded, *bias;
  bfloat16* rows;  // null: not wanted
  Divider packs;   // of a filter, one at least: its first writes the bias

  template <int N>
  MIXPL_DEVICE void pack(uint32_t i) const {
    uint32_t first = i;
    const int64_t k = packs.split(first);
    const FoldedNorm norm = folded_norm(v.gamma[k], v.beta[k], v.mean[k], v.variance[k], v.eps);
    if (first == 0) bias[k] = norm.bias;
    if (v.per == 0) return;
    const int64_t at = int64_t{i} * N;
    float w[N];
    load_floats<N>(v.weight + at, w);
#pragma unroll
    for (int n = 0; n < N; ++n) w[n] *= norm.scale;
    store_floats<N>(folded + at, w);
    if (!rows) return;
    Vec<bfloat16, N> row;
#pragma unroll
    for (int n = 0; n < N; ++n) row[n] = bfloat16(w[n]);
    store_vec(rows + at, row);
  }
};

// Gradients of weights alone.
struct FoldBackward {
  Norms v;
  const float* dfolded;  // may be dweight
  float* dweight;
  bool add;
  Divider packs;  // of a filter

  template <int N>
  MIXPL_DEVICE void pack(uint32_t i) const {
    const int64_t at = int64_t{i} * N;
    const uint32_t k = packs.quotient(i);
    const float gamma = v.gamma[k], inverse = inverse_deviation(v.variance[k], v.eps);
    float d[N], sum[N] = {};
    load_floats<N>(dfolded + at, d);
    if (add) load_floats<N>(dweight + at, sum);
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const float own = folded_weight_gradient(d[n], gamma, inverse);
      d[n] = add ? sum[n] + own : own;
    }
    store_floats<N>(dweight + at, d);
  }
};

// One block a filter, whose products it sums.
MIXPL_KERNEL __launch_bounds__(kThreads)
    fold_backward_kernel(Norms v, const float* dfolded, const float* dbias, float* dweight,
                         float* dgamma, bool add) {
  const int64_t k = blockIdx.x;
  const float inverse = inverse_deviation(v.variance[k], v.eps);
  double products = 0;
  for (int64_t i = k * v.per + threadIdx.x; i < (k + 1) * v.per; i += kThreads) {
    const float d = dfolded ? dfolded[i] : 0.0f;
    if (dgamma) products += double(d) * v.weight[i];
    if (!dweight) continue;
    const float own = folded_weight_gradient(d, v.gamma[k], inverse);
    dweight[i] = add ? dweight[i] + own : own;
  }
  if (!dgamma) return;
  products = block_sum(products);
  if (threadIdx.x == 0)
    dgamma[k] = folded_gamma_gradient(products, dbias ? dbias[k] : 0.0f, v.mean[k], inverse);
}

float* values(const Tensor& t) { return t.defined() ? t.data<float>() : nullptr; }

Norms norms(const Tensor& weight, const Tensor& gamma, const Tensor& beta, const Tensor& mean,
            const Tensor& variance, float eps) {
  const int64_t k = weight.size(0);
  return {values(weight),
          values(gamma),
          values(beta),
          values(mean),
          values(variance),
          k ? weight.numel() / k : 0,
          eps};
}

// f(PackOf<N>(), packs of a filter) with the N that all of `pointers` and filters allow.
template <typename F>
void with_width(int64_t per, std::initializer_list<const float*> pointers, F&& f) {
  bool wide = per % 8 == 0;
  for (const float* p : pointers) wide = wide && is_aligned_for<float, 4>(p);
  wide ? f(PackOf<8>(), per / 8) : f(PackOf<1>(), per);
}

}  // namespace

void fold_batch_norm_forward(const Tensor& weight, const Tensor& gamma, const Tensor& beta,
                             const Tensor& mean, const Tensor& variance, float eps, Tensor& folded,
                             Tensor& bias) {
  const Norms v = norms(weight, gamma, beta, mean, variance, eps);
  Tensor rows;
  if (Context::current().compute == DType::bf16 && weight.rank() > 1)
    rows = place_for_filter_rows(folded, DType::bf16, weight.size(-1));
  with_width(v.per, {v.weight, values(folded)}, [&](auto width, int64_t packs) {
    packs = std::max<int64_t>(packs, 1);
    for_each_pack<width()>(weight.size(0) * packs,
                           Fold{v, values(folded), values(bias),
                                rows.defined() ? rows.data<bfloat16>() : nullptr, Divider(packs)});
  });
}

void fold_batch_norm_backward(const Tensor& dfolded, const Tensor& dbias, const Tensor& weight,
                              const Tensor& gamma, const Tensor& mean, const Tensor& variance,
                              float eps, bool add, Tensor& dweight, Tensor& dgamma) {
  const Norms v = norms(weight, gamma, Tensor(), mean, variance, eps);
  if (dgamma.defined() || !dfolded.defined()) {
    launch(fold_backward_kernel, weight.size(0), kThreads, 0, v, values(dfolded), values(dbias),
           values(dweight), values(dgamma), add);
    return;
  }
  if (!dweight.defined() || !weight.numel()) return;
  with_width(v.per, {values(dfolded), values(dweight)}, [&](auto width, int64_t packs) {
    for_each_pack<width()>(weight.size(0) * packs,
                           FoldBackward{v, values(dfolded), values(dweight), add, Divider(packs)});
  });
}

}  // namespace mixpl::cuda
