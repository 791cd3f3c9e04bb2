#include "core/parallel.h"
#include "detect/gfl_targets.h"

namespace mixpl::cpu {

template <typename T>
void fill_gfl_positives(int64_t count, const GflView<T>& view) {
  parallel_for(count, view);
}
template void fill_gfl_positives(int64_t, const GflView<float>&);
template void fill_gfl_positives(int64_t, const GflView<bfloat16>&);

void fill_overlaps_at(int64_t count, const OverlapAtView& view) { parallel_for(count, view); }

}  // namespace mixpl::cpu
