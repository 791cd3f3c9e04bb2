#include <cmath>
#include <vector>

#include "core/parallel.h"
#include "ops/l1_loss/l1_loss.h"

namespace mixpl::cpu {

void smooth_l1_forward(const Tensor& pred, const Tensor& target, const Tensor& weight, float beta,
                       Tensor& loss, Tensor& dpred) {
  constexpr int64_t kBoxes = 4096;
  const int64_t boxes = weight.numel(), chunks = (boxes + kBoxes - 1) / kBoxes;
  std::vector<double> partial(chunks);
  const float *t = target.data<float>(), *w = weight.data<float>();
  dispatch_floating(pred.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* p = pred.data<T>();
    T* dp = dpred.defined() ? dpred.data<T>() : nullptr;
    parallel_for(chunks, int64_t{1}, [&](int64_t chunk) {
      double sum = 0;
      for (int64_t b = chunk * kBoxes; b < std::min(boxes, (chunk + 1) * kBoxes); ++b) {
        for (int64_t i = 4 * b; i < 4 * b + 4; ++i) {
          if (w[b] == 0) {
            if (dp) dp[i] = T(0.0f);
            continue;
          }
          const float d = float(p[i]) - t[i], size = std::fabs(d);
          const bool round = size < beta;
          sum += w[b] * (round ? 0.5f * d * d / beta : size - 0.5f * beta);
          const float slope = round ? d / beta : (d > 0 ? 1.0f : d < 0 ? -1.0f : d);
          if (dp) dp[i] = T(w[b] * slope);
        }
      }
      partial[chunk] = sum;
    });
  });
  double total = 0;
  for (double part : partial) total += part;
  *loss.data<float>() = static_cast<float>(total);
}

}  // namespace mixpl::cpu
