// Rows of normalisations with AVX2.
#include "ops/channel_norm/channel_norm_rows.h"

#if defined(__x86_64__)
#include "core/avx512.h"

#define MIXPL_VECTOR_LANES 8
#define MIXPL_SIMD  // the baseline has it
#define MIXPL_SIMD_NAME avx2
#include "ops/channel_norm/simd/rows.h"

namespace mixpl::cpu::channel_norm {

template <typename T>
const RowLoops<T>& avx2_loops() {
  return kLoops<T>;
}
template const RowLoops<float>& avx2_loops();
template const RowLoops<bfloat16>& avx2_loops();

}  // namespace mixpl::cpu::channel_norm
#endif
