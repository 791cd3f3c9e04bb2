#include <algorithm>

#include "core/parallel.h"
#include "core/simd.h"
#include "ops/gather_rows/gather_rows.h"

namespace mixpl::cpu {

BadRow gather_rows_bad_row(const Tensor& rows, int64_t count) {
  const int32_t* row = rows.data<int32_t>();
  int64_t before = -1;
  for (int64_t i = 0; i < rows.numel(); before = row[i++])
    if (row[i] <= before || row[i] >= count) return {i, row[i]};
  return {};
}

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
