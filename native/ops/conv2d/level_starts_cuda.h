// How kernels number what several maps have to do.
#pragma once

#include "core/cuda/kernel.h"
#include "ops/conv2d/conv2d.h"

namespace mixpl::cuda {

/// Levels laid out in a row, so many places each: tiles of rows, or splits of a sum.
struct LevelStarts {
  int count = 0;
  int first[kMostConvLevels + 1] = {};

  void add(int64_t places) {
    first[count + 1] = static_cast<int>(first[count] + places);
    ++count;
  }
  int places() const { return first[count]; }
  MIXPL_DEVICE int find(int place) const {
    int level = 0;
#pragma unroll
    for (int l = 1; l < kMostConvLevels; ++l) level += l < count && place >= first[l];
    return level;
  }
};

}  // namespace mixpl::cuda
