// Distances in a window and the pairs that have them, once for both devices.
#pragma once

#include <cstdint>

#include "core/launch.h"

namespace mixpl {

/// Row of the table for a query and a key of a window.
MIXPL_HD int32_t bias_row(int32_t size, int32_t query_y, int32_t query_x, int32_t key_y,
                          int32_t key_x) {
  return (query_y - key_y + size - 1) * (2 * size - 1) + query_x - key_x + size - 1;
}

/// The sum over all pairs of the distance that `row` of the table stands for.
/// @param dbias of a head: [size^2, size^2]
MIXPL_HD float bias_row_sum(const float* dbias, int32_t size, int32_t row) {
  const int32_t y = row / (2 * size - 1) - (size - 1), x = row % (2 * size - 1) - (size - 1);
  const int32_t top = y > 0 ? y : 0, bottom = y < 0 ? size + y : size;  // of the queries
  const int32_t left = x > 0 ? x : 0, right = x < 0 ? size + x : size;
  const int32_t tokens = size * size, back = y * size + x;  // from query to key
  float sum = 0;
  for (int32_t i = top; i < bottom; ++i)
    for (int32_t j = left; j < right; ++j) {
      const int64_t query = i * size + j;
      sum += dbias[query * tokens + query - back];
    }
  return sum;
}

}  // namespace mixpl
