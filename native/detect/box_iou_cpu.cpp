#include <algorithm>

#include "core/parallel.h"
#include "detect/box_iou.h"

namespace mixpl::cpu {

void pairwise_iou(const Tensor& a, const Tensor& b, IouKind kind, Tensor& out) {
  const Box *left = reinterpret_cast<const Box*>(a.data<float>()),
            *right = reinterpret_cast<const Box*>(b.data<float>());
  const int64_t n = b.size(0);
  float* values = out.data<float>();
  const auto rows = [&](auto similarity) {
    parallel_for(a.size(0), std::max<int64_t>(1, 8192 / std::max<int64_t>(n, 1)), [&](int64_t i) {
      const Box box = left[i];
      for (int64_t j = 0; j < n; ++j) values[i * n + j] = similarity(box, right[j]);
    });
  };
  if (kind == IouKind::iou)
    rows([](Box x, Box y) { return box_iou(x, y); });
  else
    rows([kind](Box x, Box y) { return box_similarity(x, y, kind); });
}

}  // namespace mixpl::cpu
