#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "core/simd.h"
#include "ops/focal_loss/focal_loss_math.h"
#include "ops/quality_focal_loss/quality_focal_loss.h"
#include "ops/quality_focal_loss/quality_focal_loss_math.h"

namespace mixpl::cpu {
namespace {

// Logits are taken in blocks of fixed size, whatever the anchors: one loop without branches treats
// all as classes without an object, then the few others are written over.
constexpr int64_t kBlock = 1024;

struct Block {
  alignas(64) float z[kBlock], loss[kBlock], dlogit[kBlock];
};

template <int kBeta>
MIXPL_CPU_CLONES void negatives_of(Block& b, int64_t n, float beta) {
  for (int64_t i = 0; i < n; ++i) {
    const FocalTerm term = focal_term<kBeta>(b.z[i], beta);
    b.loss[i] = term.loss;
    b.dlogit[i] = -term.slope;
  }
}

}  // namespace

void quality_focal_loss_forward(const Tensor& logits, const Tensor& labels, const Tensor& quality,
                                int64_t classes, float beta, Tensor& loss, Tensor& dlogits) {
  const int64_t n = logits.numel(), blocks = (n + kBlock - 1) / kBlock;
  const int32_t* label = labels.data<int32_t>();
  const float* target = quality.data<float>();
  std::vector<double> partial(blocks);
  dispatch_floating(logits.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* x = logits.data<T>();
    T* dx = dlogits.defined() ? dlogits.data<T>() : nullptr;
    parallel_for(blocks, int64_t{8}, [&](int64_t k) {
      Block b;
      const int64_t begin = k * kBlock, size = std::min(kBlock, n - begin);
      for (int64_t i = 0; i < size; ++i) b.z[i] = -float(x[begin + i]);
      if (beta == 2.0f)
        negatives_of<2>(b, size, beta);
      else
        negatives_of<-1>(b, size, beta);
      const int64_t last = (begin + size - 1) / classes;
      for (int64_t row = begin / classes; row <= last; ++row) {
        if (label[row] == classes) continue;
        const int64_t start = row * classes - begin, at = start + label[row];
        if (label[row] < 0) {
          for (int64_t i = std::max<int64_t>(start, 0); i < std::min(start + classes, size); ++i)
            b.loss[i] = b.dlogit[i] = 0;
        } else if (at >= 0 && at < size) {
          const QualityTerm term = quality_term(float(x[begin + at]), target[row], beta);
          b.loss[at] = term.loss;
          b.dlogit[at] = term.slope;
        }
      }
      if (dx) simd::scale(b.dlogit, 1.0f, dx + begin, size);
      double sum = 0;
      for (int64_t i = 0; i < size; ++i) sum += b.loss[i];
      partial[k] = sum;
    });
  });
  double sum = 0;
  for (double p : partial) sum += p;
  *loss.data<float>() = static_cast<float>(sum);
}

}  // namespace mixpl::cpu
