#include "core/cuda/kernel.h"
#include "detect/box_targets.h"

namespace mixpl::cuda {

void fill_box_targets(int64_t images, const BoxTargetView& view) {
  for_each(images * view.pyramid.count(), view);
}

void fill_anchor_centerness(int64_t images, const CenternessView& view) {
  for_each(images * view.pyramid.count(), view);
}

void fill_overlaps(int64_t count, const OverlapView& view) { for_each(count, view); }

}  // namespace mixpl::cuda
