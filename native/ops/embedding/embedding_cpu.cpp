#include <algorithm>

#include "core/parallel.h"
#include "core/simd.h"
#include "ops/embedding/embedding.h"

namespace mixpl::cpu {

void embedding_forward(const Tensor& table, const Tensor& index, Tensor& y) {
  const int64_t columns = table.size(1);
  const float* from = table.data<float>();
  const int32_t* row = index.data<int32_t>();
  dispatch_floating(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    T* to = y.data<T>();
    parallel_for(index.numel(), int64_t{64}, [&](int64_t i) {
      if (row[i] < 0)
        std::fill_n(to + i * columns, columns, T(0.0f));
      else
        simd::scale(from + row[i] * columns, 1.0f, to + i * columns, columns);
    });
  });
}

// Each row of the table goes through the index by itself: there are few of either.
void embedding_backward(const Tensor& dy, const Tensor& index, Tensor& dtable) {
  const int64_t columns = dtable.size(1), count = index.numel();
  const int32_t* row = index.data<int32_t>();
  float* to = dtable.data<float>();
  dispatch_floating(dy.dtype(), [&](auto tag) {
    const auto* from = dy.data<decltype(tag)>();
    parallel_for(dtable.size(0), int64_t{8}, [&](int64_t k) {
      float* sum = to + k * columns;
      std::fill_n(sum, columns, 0.0f);
      for (int64_t i = 0; i < count; ++i)
        if (row[i] == k)
          for (int64_t c = 0; c < columns; ++c) sum[c] += float(from[i * columns + c]);
    });
  });
}

}  // namespace mixpl::cpu
