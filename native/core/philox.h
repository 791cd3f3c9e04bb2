// Philox4x32-10 (Salmon et al. 2011): counter based, so the n-th number needs no earlier one and a
// stream is the same on every device and thread count.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "core/launch.h"

namespace mixpl {

struct Philox {
  uint64_t seed = 0;
  uint64_t stream = 0;

  /// Four uniform 32-bit words of block `counter`.
  MIXPL_HD std::array<uint32_t, 4> block(uint64_t counter) const {
    uint32_t c[4] = {static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32),
                     static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)};
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53u} * c[0];
      const uint64_t p1 = uint64_t{0xCD9E8D57u} * c[2];
      const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0;
      const uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1;
      c[1] = static_cast<uint32_t>(p1);
      c[3] = static_cast<uint32_t>(p0);
      c[0] = n0;
      c[2] = n2;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    return {c[0], c[1], c[2], c[3]};
  }

  /// The i-th uniform number of the stream, in (0, 1).
  MIXPL_HD float uniform(uint64_t i) const {
    return (static_cast<float>(block(i / 4)[i % 4] >> 8) + 0.5f) * (1.0f / 16777216.0f);
  }

  /// The i-th standard normal number of the stream (Box-Muller on words 2i and 2i + 1).
  MIXPL_HD float normal(uint64_t i) const {
    const float u = uniform(2 * i), v = uniform(2 * i + 1);
    return sqrtf(-2.0f * logf(u)) * cosf(6.283185307f * v);
  }
};

}  // namespace mixpl
