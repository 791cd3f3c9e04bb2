// Loops over regions, once for both devices.
#pragma once

#include "detect/regions.h"

namespace mixpl {

inline const Box* boxes_in(const Tensor& t) {
  return reinterpret_cast<const Box*>(t.data<float>());
}
inline Box* mutable_boxes_in(const Tensor& t) { return reinterpret_cast<Box*>(t.data<float>()); }

struct PlacesView {
  const Box* boxes;
  const int32_t* image;
  RegionLevels levels;
  int32_t* places;

  MIXPL_HD void operator()(int64_t i) const {
    places[2 * i] = image[i];
    places[2 * i + 1] = image[i] >= 0 ? levels.of(boxes[i]) : 0;
  }
};

MIXPL_HD Box refined_box(const RegionDecoderView& decoder, int64_t region, Box box,
                         ImageSize size) {
  const Box next = clip_box(decoder(region, 0, box), size);
  const float sum = next.x1 + next.y1 + next.x2 + next.y2;
  return sum != sum ? box : next;
}

}  // namespace mixpl
