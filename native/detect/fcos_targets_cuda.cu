#include "core/cuda/kernel.h"
#include "detect/fcos_targets.h"

namespace mixpl::cuda {

void fill_fcos_targets(int64_t images, const FcosView& view) {
  for_each(images * view.pyramid.count(), view);
}

}  // namespace mixpl::cuda
