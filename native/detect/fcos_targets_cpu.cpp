#include "detect/fcos_targets.h"
#include "detect/for_each_place.h"

namespace mixpl::cpu {

void fill_fcos_targets(int64_t images, const FcosView& view) {
  for_each_place(view.pyramid, images, view);
}

}  // namespace mixpl::cpu
