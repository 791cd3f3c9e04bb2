#include "core/cuda/kernel.h"
#include "ops/fold_batch_norm/fold_batch_norm.h"
#include "ops/fold_batch_norm/fold_batch_norm_math.h"

namespace mixpl::cuda {
namespace {

constexpr int kThreads = 256;

// One block a filter; pointers may be null as the tensors may be undefined.
struct Norms {
  const float *weight, *gamma, *beta, *mean, *variance;
  int64_t per;  // elements of a filter
  float eps;
};

MIXPL_KERNEL __launch_bounds__(kThreads) fold_kernel(Norms v, float* folded, float* bias) {
  const int64_t k = blockIdx.x;
  const FoldedNorm norm = folded_norm(v.gamma[k], v.beta[k], v.mean[k], v.variance[k], v.eps);
  if (threadIdx.x == 0) bias[k] = norm.bias;
  for (int64_t i = k * v.per + threadIdx.x; i < (k + 1) * v.per; i += kThreads)
    folded[i] = v.weight[i] * norm.scale;
}

MIXPL_KERNEL __launch_bounds__(kThreads)
    fold_backward_kernel(Norms v, const float* dfolded, const float* dbias, float* dweight,
                         float* dgamma) {
  const int64_t k = blockIdx.x;
  const float inverse = inverse_deviation(v.variance[k], v.eps);
  double products = 0;
  for (int64_t i = k * v.per + threadIdx.x; i < (k + 1) * v.per; i += kThreads) {
    const float d = dfolded ? dfolded[i] : 0.0f;
    if (dweight) dweight[i] = folded_weight_gradient(d, v.gamma[k], inverse);
    if (dgamma) products += double(d) * v.weight[i];
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

}  // namespace

void fold_batch_norm_forward(const Tensor& weight, const Tensor& gamma, const Tensor& beta,
                             const Tensor& mean, const Tensor& variance, float eps, Tensor& folded,
                             Tensor& bias) {
  launch(fold_kernel, weight.size(0), kThreads, 0, norms(weight, gamma, beta, mean, variance, eps),
         values(folded), values(bias));
}

void fold_batch_norm_backward(const Tensor& dfolded, const Tensor& dbias, const Tensor& weight,
                              const Tensor& gamma, const Tensor& mean, const Tensor& variance,
                              float eps, Tensor& dweight, Tensor& dgamma) {
  launch(fold_backward_kernel, weight.size(0), kThreads, 0,
         norms(weight, gamma, Tensor(), mean, variance, eps), values(dfolded), values(dbias),
         values(dweight), values(dgamma));
}

}  // namespace mixpl::cuda
