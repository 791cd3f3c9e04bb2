#include "core/parallel.h"
#include "ops/fold_batch_norm/fold_batch_norm.h"
#include "ops/fold_batch_norm/fold_batch_norm_math.h"

namespace mixpl::cpu {

void fold_batch_norm_forward(const Tensor& weight, const Tensor& gamma, const Tensor& beta,
                             const Tensor& mean, const Tensor& variance, float eps, Tensor& folded,
                             Tensor& bias) {
  const int64_t k = weight.size(0), per = k ? weight.numel() / k : 0;
  const float *w = weight.data<float>(), *g = gamma.data<float>(), *b = beta.data<float>(),
              *m = mean.data<float>(), *v = variance.data<float>();
  float* shift = bias.data<float>();
  dispatch_floating(folded.dtype(), [&](auto tag) {
    using T = decltype(tag);
    T* out = folded.data<T>();
    parallel_for(k, std::max<int64_t>(1, 32768 / std::max<int64_t>(per, 1)), [&](int64_t i) {
      const FoldedNorm norm = folded_norm(g[i], b[i], m[i], v[i], eps);
      shift[i] = norm.bias;
      for (int64_t j = 0; j < per; ++j) out[i * per + j] = T(w[i * per + j] * norm.scale);
    });
  });
}

void fold_batch_norm_backward(const Tensor& dfolded, const Tensor& dbias, const Tensor& weight,
                              const Tensor& gamma, const Tensor& mean, const Tensor& variance,
                              float eps, bool add, Tensor& dweight, Tensor& dgamma) {
  const int64_t k = weight.size(0), per = k ? weight.numel() / k : 0;
  const float *w = weight.data<float>(), *g = gamma.data<float>(), *m = mean.data<float>(),
              *v = variance.data<float>();
  const float* df = dfolded.defined() ? dfolded.data<float>() : nullptr;
  const float* db = dbias.defined() ? dbias.data<float>() : nullptr;
  float* dw = dweight.defined() ? dweight.data<float>() : nullptr;
  float* dg = dgamma.defined() ? dgamma.data<float>() : nullptr;
  parallel_for(k, std::max<int64_t>(1, 32768 / std::max<int64_t>(per, 1)), [&](int64_t i) {
    const float inverse = inverse_deviation(v[i], eps);
    if (dg) {  // first: dw may be df
      double sum = 0;
      for (int64_t j = 0; df && j < per; ++j) sum += double(df[i * per + j]) * w[i * per + j];
      dg[i] = folded_gamma_gradient(sum, db ? db[i] : 0.0f, m[i], inverse);
    }
    for (int64_t j = i * per; dw && j < (i + 1) * per; ++j) {
      const float d = df ? folded_weight_gradient(df[j], g[i], inverse) : 0.0f;
      dw[j] = add ? dw[j] + d : d;
    }
  });
}

}  // namespace mixpl::cpu
