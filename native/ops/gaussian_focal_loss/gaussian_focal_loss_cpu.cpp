#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "core/simd.h"
#include "ops/gaussian_focal_loss/gaussian_focal_loss.h"
#include "ops/gaussian_focal_loss/gaussian_focal_loss_math.h"

namespace mixpl::cpu {
namespace {

constexpr int64_t kBlock = 1024;  // what a partial sum holds, whatever the threads

struct Block {
  alignas(64) float x[kBlock], cold[kBlock], loss[kBlock], slope[kBlock];
};

// loss and slope of n negatives, cold = 1 - heat.
template <bool kUsual>
MIXPL_CPU_CLONES void negatives_of(Block& b, int64_t n, const GaussianFocal& focal) {
  for (int64_t i = 0; i < n; ++i) {
    const GaussianFocalTerm term = focal.negative<kUsual>(b.x[i], b.cold[i]);
    b.loss[i] = term.loss;
    b.slope[i] = term.slope;
  }
}

}  // namespace

int64_t gaussian_focal_bad_positive(const Tensor& positives, int64_t rows, int64_t classes) {
  const int32_t* p = positives.data<int32_t>();
  for (int64_t i = 0; i < positives.size(0); ++i)
    if (p[2 * i] < -1 || p[2 * i] >= rows || p[2 * i + 1] < 0 || p[2 * i + 1] >= classes) return i;
  return -1;
}

void gaussian_focal_loss_forward(const Tensor& logits, const Tensor& heat, const Tensor& positives,
                                 const GaussianFocalLossOptions& o, Tensor& loss, Tensor& dlogits) {
  const GaussianFocal focal = GaussianFocal::of(o);
  const bool usual = focal.usual();
  const int64_t n = logits.numel(), blocks = (n + kBlock - 1) / kBlock;
  std::vector<double> partial(blocks);
  dispatch_floating(logits.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* x = logits.data<T>();
    const float* h = heat.data<float>();
    T* dx = dlogits.defined() ? dlogits.data<T>() : nullptr;
    parallel_for(blocks, int64_t{8}, [&](int64_t at) {
      Block b;
      const int64_t begin = at * kBlock, size = std::min(kBlock, n - begin);
      for (int64_t i = 0; i < size; ++i) b.x[i] = float(x[begin + i]);
      for (int64_t i = 0; i < size; ++i) b.cold[i] = 1.0f - h[begin + i];
      if (usual)
        negatives_of<true>(b, size, focal);
      else
        negatives_of<false>(b, size, focal);
      if (dx) simd::scale(b.slope, 1.0f, dx + begin, size);
      double sum = 0;
      for (int64_t i = 0; i < size; ++i) sum += b.loss[i];
      partial[at] = sum;
    });
    double sum = 0;
    for (double p : partial) sum += p;

    const int64_t classes = logits.size(-1);
    const int32_t* pair = positives.data<int32_t>();
    // Few of them, and some may be the same: one after another.
    for (int64_t i = 0; i < positives.size(0); ++i) {
      if (pair[2 * i] < 0) continue;
      const int64_t index = pair[2 * i] * classes + pair[2 * i + 1];
      const float logit = float(x[index]);
      const GaussianFocalTerm term =
          usual ? focal.positive<true>(logit) : focal.positive<false>(logit);
      sum += term.loss;
      if (dx) dx[index] = T(float(dx[index]) + term.slope);
    }
    *loss.data<float>() = static_cast<float>(sum);
  });
}

}  // namespace mixpl::cpu
