// Rows of normalisations for processors that have no file of their own.
#include "ops/channel_norm/channel_norm_rows.h"

#if !defined(__x86_64__)
#define MIXPL_VECTOR_LANES 8
#define MIXPL_SIMD
#define MIXPL_SIMD_NAME portable_lanes
#define MIXPL_SIMD_PORTABLE
#include "ops/channel_norm/simd/rows.h"

namespace mixpl::cpu::channel_norm {

template <typename T>
const RowLoops<T>& portable_loops() {
  return kLoops<T>;
}
template const RowLoops<float>& portable_loops();
template const RowLoops<bfloat16>& portable_loops();

}  // namespace mixpl::cpu::channel_norm
#endif
