// Rows of normalisations with AVX-512.
#include "ops/channel_norm/channel_norm_rows.h"

#if defined(__x86_64__)
#include "core/avx512.h"

#define MIXPL_VECTOR_LANES 16
#define MIXPL_SIMD MIXPL_AVX512_BF16
#define MIXPL_SIMD_NAME avx512
#include "ops/channel_norm/simd/rows.h"

namespace mixpl::cpu::channel_norm {

template <typename T>
const RowLoops<T>& avx512_loops() {
  return kLoops<T>;
}
template const RowLoops<float>& avx512_loops();
template const RowLoops<bfloat16>& avx512_loops();

}  // namespace mixpl::cpu::channel_norm
#endif
