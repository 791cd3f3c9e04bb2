#include "core/cuda/kernel.h"
#include "detect/query_regions_math.h"

namespace mixpl::cuda {

void query_regions(const Tensor& boxes, const Tensor& sizes, const Regions& regions) {
  for_each(regions.size(), QueryRegionsView(boxes, sizes, regions));
}

}  // namespace mixpl::cuda
