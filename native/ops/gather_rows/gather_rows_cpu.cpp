#include <algorithm>

#include "core/parallel.h"
#include "core/simd.h"
#include "ops/gather_rows/gather_rows.h"

namespace mixpl::cpu {

void gather_rows_forward(const Tensor& x, const Tensor& rows, Tensor& y) {
  const int64_t columns = y.size(1);
  const int32_t* row = rows.data<int32_t>();
  float* out = y.data<float>();
  dispatch_floating(x.dtype(), [&](auto tag) {
    const auto* in = x.data<decltype(tag)>();
    parallel_for(rows.numel(), int64_t{256}, [&](int64_t i) {
      if (row[i] < 0)
        std::fill_n(out + i * columns, columns, 0.0f);
      else
        simd::scale(in + row[i] * columns, 1.0f, out + i * columns, columns);
    });
  });
}

void gather_rows_backward(const Tensor& dy, const Tensor& rows, Tensor& dx) {
  const int64_t columns = dy.size(1);
  const int32_t* row = rows.data<int32_t>();
  const float* in = dy.data<float>();
  dispatch_floating(dx.dtype(), [&](auto tag) {
    auto* out = dx.data<decltype(tag)>();
    parallel_for(rows.numel(), int64_t{256}, [&](int64_t i) {
      if (row[i] >= 0) simd::scale(in + i * columns, 1.0f, out + row[i] * columns, columns);
    });
  });
}

}  // namespace mixpl::cpu
