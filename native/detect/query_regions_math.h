// A query's box as a region, once for both devices.
#pragma once

#include "detect/query_regions.h"
#include "ops/boxes_from_centers/boxes_from_centers_math.h"

namespace mixpl {

struct QueryRegionsView {
  const CenterBox* boxes;
  const ImageSize* sizes;
  int64_t queries;  // of an image
  Box* regions;
  int32_t* image;

  QueryRegionsView(const Tensor& from, const Tensor& sizes, const Regions& to)
      : boxes(reinterpret_cast<const CenterBox*>(from.data<float>())),
        sizes(sizes_in(sizes)),
        queries(from.size(1)),
        regions(reinterpret_cast<Box*>(to.boxes.data<float>())),
        image(to.image.data<int32_t>()) {}

  MIXPL_HD void operator()(int64_t i) const {
    const int64_t n = i / queries;
    const Box b = box_from_center(boxes[i], sizes[n]);
    const float sum = b.x1 + b.y1 + b.x2 + b.y2;  // infinities of both signs are a NaN as well
    regions[i] = sum != sum ? Box{0, 0, 0, 0} : Box{held(b.x1), held(b.y1), held(b.x2), held(b.y2)};
    image[i] = static_cast<int32_t>(n);
  }

 private:
  static MIXPL_HD float held(float edge) {
    return lesser(greater(edge, -kFarthestRegion), kFarthestRegion);
  }
};

}  // namespace mixpl
