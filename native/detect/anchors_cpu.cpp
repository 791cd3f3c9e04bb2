#include "core/parallel.h"
#include "detect/anchors.h"

namespace mixpl::cpu {

void make_anchors(int64_t count, const AnchorView& view) { parallel_for(count, view); }
void mark_valid(int64_t count, const ValidView& view) { parallel_for(count, view); }

}  // namespace mixpl::cpu
