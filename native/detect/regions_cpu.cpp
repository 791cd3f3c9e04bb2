#include <algorithm>

#include "core/parallel.h"
#include "detect/region_list.h"
#include "detect/regions_math.h"

namespace mixpl::cpu {

Regions RegionList::regions() const {
  const int64_t count = static_cast<int64_t>(boxes_.size());
  Regions out;
  out.boxes = Tensor::empty({count, 4}, DType::f32);
  std::copy(boxes_.begin(), boxes_.end(), mutable_boxes_in(out.boxes));
  out.image = Tensor::from(image_, {count});
  out.counts = Tensor::from(counts_, {static_cast<int64_t>(counts_.size())});
  return out;
}

void places_of(const Regions& regions, const RegionLevels& levels, Tensor& places) {
  parallel_for(regions.size(), PlacesView{boxes_in(regions.boxes), regions.image.data<int32_t>(),
                                          levels, places.data<int32_t>()});
}

Regions refine_regions(const Regions& regions, const RegionDecoder& decoder, const Tensor& sizes,
                       const Tensor& left_out) {
  const RegionDecoderView decode(decoder);
  const Box* box = boxes_in(regions.boxes);
  const int32_t* image = regions.image.data<int32_t>();
  const uint8_t* out = left_out.defined() ? left_out.data<uint8_t>() : nullptr;
  RegionList next(regions.images());
  for (int64_t i = 0; i < regions.size(); ++i) {
    if (out && out[i]) continue;
    next.add(image[i], refined_box(decode, i, box[i], sizes_in(sizes)[image[i]]));
  }
  return next.regions();
}

}  // namespace mixpl::cpu
