// The order in which boxes are met: by falling score, the same on both devices.
#pragma once

#include <bit>
#include <cstdint>

#include "core/launch.h"

namespace mixpl {

/// Falling scores as rising integers; NaN comes last, -0 equals 0.
MIXPL_HD uint32_t descending_key(float score) {
  if (score != score) return 0xffffffffu;
  const uint32_t bits = std::bit_cast<uint32_t>(score + 0.0f);
  return bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
}

}  // namespace mixpl
