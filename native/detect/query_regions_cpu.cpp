#include "core/parallel.h"
#include "detect/query_regions_math.h"

namespace mixpl::cpu {

void query_regions(const Tensor& boxes, const Tensor& sizes, const Regions& regions) {
  parallel_for(regions.size(), QueryRegionsView(boxes, sizes, regions));
}

}  // namespace mixpl::cpu
