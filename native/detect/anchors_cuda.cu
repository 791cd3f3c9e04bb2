#include "core/cuda/kernel.h"
#include "detect/anchors.h"

namespace mixpl::cuda {

void make_anchors(int64_t count, const AnchorView& view) { for_each(count, view); }
void mark_valid(int64_t count, const ValidView& view) { for_each(count, view); }

}  // namespace mixpl::cuda
