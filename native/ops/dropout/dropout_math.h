// Which numbers dropout keeps, once for both devices.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/philox.h"

namespace mixpl {

struct DropoutMask {
  Philox random;
  uint32_t threshold;  // words below it drop
  float scale;

  /// p in [0, 1), as an f32: at most 1 - 2^-24, so the threshold fits.
  static DropoutMask of(float p, const Philox& random) {
    return {random, static_cast<uint32_t>(std::llround(p * 4294967296.0)),
            static_cast<float>(1.0 / (1.0 - p))};
  }
  MIXPL_HD float apply(float x, uint32_t word) const { return word < threshold ? 0.0f : x * scale; }
  /// The stream's i-th word.
  MIXPL_HD uint32_t word(uint64_t i) const {
    const auto block = random.block(i / 4);
    const uint32_t low = i & 1 ? block[1] : block[0], high = i & 1 ? block[3] : block[2];
    return i & 2 ? high : low;
  }
};

}  // namespace mixpl
