#include "ops/focal_loss/focal_loss.h"

#include <vector>

#include "core/parallel.h"
#include "core/simd.h"
#include "ops/focal_loss/focal_loss_math.h"

namespace mixpl::cpu {
namespace {

// Logits are taken in blocks of fixed size, whatever the anchors: everything counts as negative,
// then the few positives and ignored rows are patched, and one loop without branches does the rest.
constexpr int64_t kBlock = 1024;

struct Block {
  alignas(64) float z[kBlock], weight[kBlock], loss[kBlock], dlogit[kBlock];
};

template <int kGamma>
MIXPL_CPU_CLONES void losses_of(Block& b, int64_t n, float gamma) {
  for (int64_t i = 0; i < n; ++i)
    b.loss[i] = weighted_focal_term<kGamma>(b.z[i], b.weight[i], gamma).loss;
}
template <int kGamma>
MIXPL_CPU_CLONES void losses_and_slopes_of(Block& b, int64_t n, float gamma) {
  for (int64_t i = 0; i < n; ++i) {
    const FocalTerm term = weighted_focal_term<kGamma>(b.z[i], b.weight[i], gamma);
    b.loss[i] = term.loss;
    b.dlogit[i] = term.slope;
  }
}

// z and weight of weighted_focal_term, both 0 for ignored.
template <typename T>
void prepare(Block& b, const T* logits, const int32_t* labels, int64_t begin, int64_t n,
             int64_t classes, float alpha) {
  for (int64_t i = 0; i < n; ++i) b.z[i] = -float(logits[begin + i]);
  std::fill_n(b.weight, n, alpha - 1.0f);
  const int64_t last = (begin + n - 1) / classes;
  for (int64_t row = begin / classes; row <= last; ++row) {
    const int32_t label = labels[row];
    if (label == classes) continue;
    const int64_t start = row * classes - begin;
    if (label < 0) {
      for (int64_t i = std::max<int64_t>(start, 0); i < std::min(start + classes, n); ++i)
        b.z[i] = b.weight[i] = 0;
    } else if (start + label >= 0 && start + label < n) {
      b.z[start + label] = -b.z[start + label];
      b.weight[start + label] = alpha;
    }
  }
}

// The run of an entry is its place among weight.numel() equal parts of all n entries.
void apply_weights(Block& b, const Tensor& weight, int64_t begin, int64_t size, int64_t n) {
  const int64_t run = n / weight.numel();
  for (int64_t i = 0; i < size;) {
    const int64_t group = (begin + i) / run, end = std::min(size, (group + 1) * run - begin);
    const float w = weight.data<float>()[group];
    for (; i < end; ++i) b.weight[i] *= w;
  }
}

double sum_of(const float* values, int64_t n) {
  float lanes[32] = {};
  int64_t i = 0;
  for (; i + 32 <= n; i += 32)
    for (int l = 0; l < 32; ++l) lanes[l] += values[i + l];
  for (int l = 0; i + l < n; ++l) lanes[l] += values[i + l];
  double sum = 0;
  for (float lane : lanes) sum += lane;
  return sum;
}

}  // namespace

int64_t focal_loss_bad_label(const Tensor& labels, int64_t classes) {
  const int32_t* p = labels.data<int32_t>();
  const auto limit = static_cast<int32_t>(classes);
  int32_t low = 0, high = 0;
  for (int64_t i = 0; i < labels.numel(); ++i) {
    low = std::min(low, p[i]);
    high = std::max(high, p[i]);
  }
  return low < -1 ? low : (high > limit ? high : 0);
}

void focal_loss_forward(const Tensor& logits, const Tensor& labels, int64_t classes,
                        const FocalLossOptions& options, const Tensor& weight, Tensor& loss,
                        Tensor& dlogits) {
  const int64_t n = logits.numel(), blocks = (n + kBlock - 1) / kBlock;
  std::vector<double> partial(blocks);
  dispatch_floating(logits.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* x = logits.data<T>();
    T* dx = dlogits.defined() ? dlogits.data<T>() : nullptr;
    const int32_t* label = labels.data<int32_t>();
    with_gamma(options.gamma, [&]<int kGamma>() {
      parallel_for(blocks, int64_t{8}, [&](int64_t k) {
        Block b;
        const int64_t begin = k * kBlock, size = std::min(kBlock, n - begin);
        prepare(b, x, label, begin, size, classes, options.alpha);
        if (weight.defined()) apply_weights(b, weight, begin, size, n);
        if (dx) {
          losses_and_slopes_of<kGamma>(b, size, options.gamma);
          simd::scale(b.dlogit, 1.0f, dx + begin, size);
        } else {
          losses_of<kGamma>(b, size, options.gamma);
        }
        partial[k] = sum_of(b.loss, size);
      });
    });
  });
  double sum = 0;
  for (double p : partial) sum += p;
  *loss.data<float>() = static_cast<float>(sum);
}

void focal_loss_backward(const Tensor& dloss, Tensor& dlogits) {
  const float scale = *dloss.data<float>();
  if (scale == 1.0f) return;
  dispatch_floating(dlogits.dtype(), [&](auto tag) {
    using T = decltype(tag);
    T* values = dlogits.data<T>();
    parallel_chunks(dlogits.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
      simd::scale(values + begin, scale, values + begin, end - begin);
    });
  });
}

}  // namespace mixpl::cpu
