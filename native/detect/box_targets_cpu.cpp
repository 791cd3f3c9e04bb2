#include "detect/box_targets.h"
#include "detect/for_each_place.h"

namespace mixpl::cpu {

void fill_box_targets(int64_t images, const BoxTargetView& view) {
  for_each_place(view.pyramid, images, view);
}

void fill_anchor_centerness(int64_t images, const CenternessView& view) {
  for_each_place(view.pyramid, images, view);
}

void fill_overlaps(int64_t count, const OverlapView& view) { parallel_for(count, view); }

}  // namespace mixpl::cpu
