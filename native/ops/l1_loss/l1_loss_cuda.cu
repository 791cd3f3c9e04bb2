#include "core/cuda/kernel.h"
#include "ops/l1_loss/l1_loss.h"
#include "ops/l1_loss/l1_loss_math.h"

namespace mixpl::cuda {
namespace {

// Item b of both: the four numbers of a box.
template <typename T>
struct LossView {
  const T* __restrict__ pred;
  const float* __restrict__ target;
  const float* __restrict__ weight;
  float beta;

  MIXPL_DEVICE float operator()(int64_t b) const {
    const float w = weight[b];
    if (w == 0) return 0;
    const Vec<T, 4> x = load_vec<T, 4>(pred + 4 * b);
    const Vec<float, 4> t = load_vec<float, 4>(target + 4 * b);
    float sum = 0;
#pragma unroll
    for (int k = 0; k < 4; ++k) sum += smooth_l1_term(float(x[k]) - t[k], beta).loss;
    return w * sum;
  }
};

template <typename T>
struct GradientView {
  const float* __restrict__ dloss;
  const T* __restrict__ pred;
  const float* __restrict__ target;
  const float* __restrict__ weight;
  float beta;
  T* __restrict__ dpred;

  MIXPL_DEVICE void operator()(int64_t b) const {
    const float w = weight[b], scale = load_read_only(dloss) * w;
    const Vec<T, 4> x = load_vec<T, 4>(pred + 4 * b);
    const Vec<float, 4> t = load_vec<float, 4>(target + 4 * b);
    Vec<T, 4> d;
#pragma unroll
    for (int k = 0; k < 4; ++k)
      d[k] = T(w == 0 ? 0.0f : scale * smooth_l1_term(float(x[k]) - t[k], beta).slope);
    store_vec(dpred + 4 * b, d);
  }
};

}  // namespace

void smooth_l1_loss_forward(const Tensor& pred, const Tensor& target, const Tensor& weight,
                            float beta, Tensor& loss) {
  dispatch_floating(pred.dtype(), [&](auto tag) {
    using T = decltype(tag);
    reduce_sum(weight.numel(),
               LossView<T>{pred.data<T>(), target.data<float>(), weight.data<float>(), beta},
               loss.data<float>());
  });
}

void smooth_l1_loss_backward(const Tensor& dloss, const Tensor& pred, const Tensor& target,
                             const Tensor& weight, float beta, Tensor& dpred) {
  dispatch_floating(pred.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_each(weight.numel(),
             GradientView<T>{dloss.data<float>(), pred.data<T>(), target.data<float>(),
                             weight.data<float>(), beta, dpred.data<T>()});
  });
}

}  // namespace mixpl::cuda
