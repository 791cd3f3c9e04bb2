// Functions for AVX-512 in a binary whose baseline is older: the attribute compiles them, the
// question asks the processor before they are called.
#pragma once

#if defined(__x86_64__)
// GCC 12 takes the headers' own undefined vectors for a mistake of ours.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#define MIXPL_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
#define MIXPL_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#endif

namespace mixpl {

#if defined(__x86_64__)
inline bool has_avx512() {
  static const bool yes = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return yes;
}
inline bool has_avx512_bf16() {
  static const bool yes = has_avx512() && __builtin_cpu_supports("avx512bf16");
  return yes;
}
#endif

}  // namespace mixpl
