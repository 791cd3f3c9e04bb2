// The registers that Winograd's loops work with: these files are compiled once for each instruction
// set, by winograd_avx512_cpu.cpp and winograd_avx2_cpu.cpp.
#pragma once

#include "core/registers.h"

namespace mixpl::cpu::winograd {
inline namespace MIXPL_SIMD_NAME {

using namespace registers::MIXPL_SIMD_NAME;

}  // namespace MIXPL_SIMD_NAME
}  // namespace mixpl::cpu::winograd
