#include <vector>

#include "core/parallel.h"
#include "ops/focal_loss/focal_loss_math.h"

namespace mixpl::cpu {
namespace {

// Anchors per partial sum: fixed, so that the sum does not depend on the number of threads.
constexpr int64_t kAnchors = 512;

// Background is nearly everything: first every class as negative, without a look at the labels, so
// that the loop vectorises; then the few positives are put right.
template <typename T, bool kSquare, bool kGradient>
double chunk(const T* logits, const int32_t* labels, int64_t count, int64_t classes,
             FocalLossOptions o, T* dlogits) {
  double total = 0;
  for (int64_t a = 0; a < count; ++a) {
    const T* x = logits + a * classes;
    T* dx = kGradient ? dlogits + a * classes : nullptr;
    const int32_t label = labels[a];
    if (label < 0) {
      if (kGradient)
        for (int64_t c = 0; c < classes; ++c) dx[c] = T(0.0f);
      continue;
    }
    float lanes[8] = {};
    int64_t c = 0;
    for (; c + 8 <= classes; c += 8)
      for (int l = 0; l < 8; ++l) {
        const FocalTerm t = focal_term<kSquare>(float(x[c + l]), false, o);
        lanes[l] += t.loss;
        if (kGradient) dx[c + l] = T(t.dlogit);
      }
    float sum = ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) +
                ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
    for (; c < classes; ++c) {
      const FocalTerm t = focal_term<kSquare>(float(x[c]), false, o);
      sum += t.loss;
      if (kGradient) dx[c] = T(t.dlogit);
    }
    if (label < classes) {
      const FocalTerm positive = focal_term<kSquare>(float(x[label]), true, o);
      sum += positive.loss - focal_term<kSquare>(float(x[label]), false, o).loss;
      if (kGradient) dx[label] = T(positive.dlogit);
    }
    total += sum;
  }
  return total;
}

}  // namespace

void focal_loss_forward(const Tensor& logits, const Tensor& labels, int64_t classes,
                        FocalLossOptions o, Tensor& loss, Tensor& dlogits) {
  const int64_t anchors = labels.numel(), chunks = (anchors + kAnchors - 1) / kAnchors;
  std::vector<double> partial(chunks);
  const int32_t* label = labels.data<int32_t>();
  dispatch_floating(logits.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* x = logits.data<T>();
    T* dx = dlogits.defined() ? dlogits.data<T>() : nullptr;
    const bool square = o.gamma == 2.0f;
    const auto run = square ? (dx ? chunk<T, true, true> : chunk<T, true, false>)
                            : (dx ? chunk<T, false, true> : chunk<T, false, false>);
    parallel_for(chunks, int64_t{1}, [&](int64_t i) {
      const int64_t first = i * kAnchors;
      partial[i] = run(x + first * classes, label + first, std::min(kAnchors, anchors - first),
                       classes, o, dx ? dx + first * classes : nullptr);
    });
  });
  double total = 0;
  for (double p : partial) total += p;
  *loss.data<float>() = static_cast<float>(total);
}

void scale_in_place(Tensor& values, float factor) {
  if (factor == 1.0f) return;
  dispatch_floating(values.dtype(), [&](auto tag) {
    using T = decltype(tag);
    T* v = values.data<T>();
    parallel_chunks(values.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) v[i] = T(float(v[i]) * factor);
    });
  });
}

}  // namespace mixpl::cpu
