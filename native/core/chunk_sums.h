// Sums over many rows on the CPU: each chunk of rows is summed by one thread, then the chunks in
// order, so that the bits follow from the shape alone.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/parallel.h"

namespace mixpl {

/// Rows of a chunk: at most 512 chunks, so that sums of chunks are few beside what they sum.
inline int64_t rows_of_chunk(int64_t rows, int64_t least) {
  return std::max(least, (rows + 511) / 512);
}

/// out[i] = sum over chunks of partial[chunk * stride + i] for i in [0, n), in double.
template <typename T>
void sum_chunks(const float* partial, int64_t stride, int64_t chunks, int64_t n, T* out) {
  constexpr int64_t kColumns = 64;
  const int64_t blocks = (n + kColumns - 1) / kColumns;
  parallel_for(blocks, std::max<int64_t>(1, 512 / std::max<int64_t>(chunks, 1)),
               [&](int64_t block) {
                 const int64_t first = block * kColumns, count = std::min(kColumns, n - first);
                 double sum[kColumns] = {};
                 for (int64_t c = 0; c < chunks; ++c)
                   for (int64_t i = 0; i < count; ++i) sum[i] += partial[c * stride + first + i];
                 for (int64_t i = 0; i < count; ++i) out[first + i] = T(static_cast<float>(sum[i]));
               });
}

}  // namespace mixpl
