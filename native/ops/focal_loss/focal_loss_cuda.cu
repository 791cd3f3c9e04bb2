#include "core/cuda/approximations.h"
#include "core/cuda/packs.h"
#include "ops/focal_loss/focal_loss.h"
#include "ops/focal_loss/focal_loss_math.h"
#include "ops/focal_loss/labelled_sum_cuda.h"

namespace mixpl::cuda {
namespace {

// Gradients of bf16 are rounded to 8 bits: exact arithmetic took most of the time of reading and
// writing them.
struct ApproximateArithmetic {
  MIXPL_DEVICE static float exp(float x) { return approximate_exp(x); }
  MIXPL_DEVICE static float reciprocal(float x) { return approximate_reciprocal(x); }
};
template <typename T>
using ArithmeticFor =
    std::conditional_t<std::is_same_v<T, float>, ExactArithmetic, ApproximateArithmetic>;

template <typename T, int kGamma>
struct FocalEntry {
  struct Row {
    float weight;
  };
  float alpha, gamma;
  const float* weight;  // null: 1
  Divider run;          // rows that share a weight

  MIXPL_DEVICE Row row(int64_t r) const {
    return {weight ? load_read_only(weight + run.quotient(static_cast<uint32_t>(r))) : 1.0f};
  }
  MIXPL_DEVICE EntryTerm at(float x, bool is_label, Row of_row) const {
    const FocalTerm term = weighted_focal_term<kGamma, ArithmeticFor<T>>(
        is_label ? x : -x, (is_label ? alpha : alpha - 1.0f) * of_row.weight, gamma);
    return {term.loss, term.slope};
  }
};

template <typename T>
struct ScaleView {
  static constexpr int kWidth = 16 / sizeof(T);
  const float* dloss;
  T* values;
  int64_t numel;

  MIXPL_DEVICE void operator()(int64_t i) const {
    const float scale = load_read_only(dloss);
    if (scale == 1.0f) return;
    T* own = values + i * kWidth;
    if ((i + 1) * kWidth <= numel) {
      Vec<T, kWidth> v = load_vec<T, kWidth>(own);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) v[k] = T(float(v[k]) * scale);
      store_vec(own, v);
    } else {
      for (int64_t k = 0; k < numel - i * kWidth; ++k) own[k] = T(float(own[k]) * scale);
    }
  }
};

}  // namespace

// Of named ops only, which may wait.
int64_t focal_loss_bad_label(const Tensor& labels, int64_t classes) {
  return cpu::focal_loss_bad_label(labels.to(Device::cpu()), classes);
}

void focal_loss_forward(const Tensor& logits, const Tensor& labels, int64_t classes,
                        const FocalLossOptions& options, const Tensor& weight, Tensor& loss,
                        Tensor& dlogits) {
  const float* w = weight.defined() ? weight.data<float>() : nullptr;
  const Divider run(w ? std::max<int64_t>(labels.numel() / weight.numel(), 1) : 1);
  if (w) index_of(labels.numel());
  dispatch_floating(logits.dtype(), [&](auto tag) {
    with_gamma(options.gamma, [&]<int kGamma>() {
      using T = decltype(tag);
      labelled_sum<T>(logits, labels, classes,
                      FocalEntry<T, kGamma>{options.alpha, options.gamma, w, run}, loss, dlogits);
    });
  });
}

void focal_loss_backward(const Tensor& dloss, Tensor& dlogits) {
  dispatch_floating(dlogits.dtype(), [&](auto tag) {
    using View = ScaleView<decltype(tag)>;
    const int64_t n = dlogits.numel();
    for_each((n + View::kWidth - 1) / View::kWidth,
             View{dloss.data<float>(), dlogits.data<decltype(tag)>(), n});
  });
}

}  // namespace mixpl::cuda
