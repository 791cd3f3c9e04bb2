#include "core/cuda/kernel.h"
#include "ops/sigmoid_bce/sigmoid_bce.h"
#include "ops/sigmoid_bce/sigmoid_bce_math.h"

namespace mixpl::cuda {
namespace {

template <typename T>
struct Entries {
  const T* __restrict__ logits;
  const float* __restrict__ target;
  const float* __restrict__ weight;

  // The term with its weight; none at weight 0, whatever the entry holds.
  MIXPL_DEVICE BceTerm at(float x, float t, float w) const {
    const BceTerm term = sigmoid_bce_term(x, t);
    return w == 0 ? BceTerm{0, 0} : BceTerm{w * term.loss, w * term.slope};
  }
  MIXPL_DEVICE BceTerm at(int64_t i) const { return at(float(logits[i]), target[i], weight[i]); }
};

// Item i of both: four entries, fewer at the end.
template <typename T>
struct LossView {
  Entries<T> in;
  int64_t numel;

  MIXPL_DEVICE float operator()(int64_t i) const {
    const int64_t begin = 4 * i;
    float sum = 0;
    if (begin + 4 > numel) {
      for (int64_t k = begin; k < numel; ++k) sum += in.at(k).loss;
      return sum;
    }
    const Vec<T, 4> x = load_vec<T, 4>(in.logits + begin);
    const Vec<float, 4> t = load_vec<float, 4>(in.target + begin);
    const Vec<float, 4> w = load_vec<float, 4>(in.weight + begin);
#pragma unroll
    for (int k = 0; k < 4; ++k) sum += in.at(float(x[k]), t[k], w[k]).loss;
    return sum;
  }
};

template <typename T>
struct GradientView {
  Entries<T> in;
  int64_t numel;
  const float* __restrict__ dloss;
  T* __restrict__ dlogits;

  MIXPL_DEVICE void operator()(int64_t i) const {
    const int64_t begin = 4 * i;
    const float scale = load_read_only(dloss);
    if (begin + 4 > numel) {
      for (int64_t k = begin; k < numel; ++k) dlogits[k] = T(scale * in.at(k).slope);
      return;
    }
    const Vec<T, 4> x = load_vec<T, 4>(in.logits + begin);
    const Vec<float, 4> t = load_vec<float, 4>(in.target + begin);
    const Vec<float, 4> w = load_vec<float, 4>(in.weight + begin);
    Vec<T, 4> d;
#pragma unroll
    for (int k = 0; k < 4; ++k) d[k] = T(scale * in.at(float(x[k]), t[k], w[k]).slope);
    store_vec(dlogits + begin, d);
  }
};

template <typename T>
Entries<T> entries(const Tensor& logits, const Tensor& target, const Tensor& weight) {
  return {logits.data<T>(), target.data<float>(), weight.data<float>()};
}

}  // namespace

void sigmoid_bce_forward(const Tensor& logits, const Tensor& target, const Tensor& weight,
                         Tensor& loss) {
  const int64_t n = logits.numel();
  dispatch_floating(logits.dtype(), [&](auto tag) {
    using T = decltype(tag);
    reduce_sum((n + 3) / 4, LossView<T>{entries<T>(logits, target, weight), n}, loss.data<float>());
  });
}

void sigmoid_bce_backward(const Tensor& dloss, const Tensor& logits, const Tensor& target,
                          const Tensor& weight, Tensor& dlogits) {
  const int64_t n = logits.numel();
  dispatch_floating(logits.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_each((n + 3) / 4, GradientView<T>{entries<T>(logits, target, weight), n,
                                          dloss.data<float>(), dlogits.data<T>()});
  });
}

}  // namespace mixpl::cuda
