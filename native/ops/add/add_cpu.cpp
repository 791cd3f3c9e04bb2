#include <algorithm>

#include "core/chunk_sums.h"
#include "core/parallel.h"
#include "core/simd.h"
#include "ops/add/add.h"

namespace mixpl::cpu {
namespace {

constexpr int64_t kGrain = 1 << 15;
constexpr int64_t kShortRow = 256;  // shorter ones are repeated, so that loops are long
// A piece of the sums of columns: its values stay in the first cache.
constexpr int64_t kRows = 64, kColumns = 1024;

template <typename A, typename B>
void add_run(const A* a, const B* b, A* y, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) simd::store(y + i, simd::load(a + i) + simd::load(b + i));
  for (; i < n; ++i) y[i] = A(float(a[i]) + float(b[i]));
}

// b several times over as f32.
Tensor repeated(const Tensor& b, int64_t times) {
  const int64_t n = b.numel();
  Tensor out = Tensor::empty({times * n}, DType::f32);
  dispatch_floating(b.dtype(), [&](auto tag) {
    const auto* from = b.data<decltype(tag)>();
    float* to = out.data<float>();
    for (int64_t i = 0; i < times * n; ++i) to[i] = float(from[i % n]);
  });
  return out;
}

template <typename T>
void add_row(const T* x, float* sum, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) simd::store(sum + i, simd::load(sum + i) + simd::load(x + i));
  for (; i < n; ++i) sum[i] += float(x[i]);
}

}  // namespace

void add_forward(const Tensor& a, const Tensor& b, Tensor& y) {
  if (b.numel() < kShortRow && b.numel() < a.numel())
    return add_forward(a, repeated(b, kShortRow / b.numel() + 1), y);
  const int64_t row = b.numel();
  dispatch_floating(a.dtype(), [&](auto tag) {
    using A = decltype(tag);
    dispatch_floating(b.dtype(), [&](auto other) {
      using B = decltype(other);
      const A* in = a.data<A>();
      const B* add = b.data<B>();
      A* out = y.data<A>();
      parallel_chunks(a.numel(), kGrain, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end;) {
          const int64_t at = i % row, count = std::min(end - i, row - at);
          add_run(in + i, add + at, out + i, count);
          i += count;
        }
      });
    });
  });
}

void add_backward(const Tensor& dy, Tensor& db) {
  const int64_t columns = db.numel(), rows = columns ? dy.numel() / columns : 0;
  if (columns == 0) return;
  const int64_t step = rows_of_chunk(rows, kRows), chunks = (rows + step - 1) / step;
  const int64_t across = (columns + kColumns - 1) / kColumns;
  const Tensor partial = Tensor::empty({chunks, columns}, DType::f32);
  float* sums = partial.data<float>();
  dispatch_floating(dy.dtype(), [&](auto tag) {
    const auto* in = dy.data<decltype(tag)>();
    const int64_t work = std::min(step, rows) * std::min(columns, kColumns);
    parallel_for(chunks * across, kGrain / std::max<int64_t>(work, 1) + 1, [=](int64_t i) {
      const int64_t chunk = i / across, first = i % across * kColumns;
      const int64_t count = std::min(kColumns, columns - first);
      const int64_t end = std::min(rows, (chunk + 1) * step);
      float* sum = sums + chunk * columns + first;
      std::fill_n(sum, count, 0.0f);
      for (int64_t row = chunk * step; row < end; ++row)
        add_row(in + row * columns + first, sum, count);
    });
  });
  dispatch_floating(db.dtype(), [&](auto tag) {
    sum_chunks(sums, columns, chunks, columns, db.data<decltype(tag)>());
  });
}

}  // namespace mixpl::cpu
