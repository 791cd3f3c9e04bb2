// The order in which boxes are met: by falling score, the same on both devices.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "core/launch.h"

namespace mixpl {

/// Falling scores as rising integers; NaN comes last, -0 equals 0.
MIXPL_HD uint32_t descending_key(float score) {
  if (score != score) return 0xffffffffu;
  const uint32_t bits = std::bit_cast<uint32_t>(score + 0.0f);
  return bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
}

/// The number that has this key; of a key that is NaN's or nobody's an infinity, as it comes before
/// or after all numbers.
MIXPL_HD float number_of_key(uint32_t key) {
  if (key >= 0xff800000u) return -INFINITY;
  if (key & 0x80000000u) return std::bit_cast<float>(key);
  return key < 0x007fffffu ? INFINITY : std::bit_cast<float>(0x7fffffffu - key);
}

}  // namespace mixpl
