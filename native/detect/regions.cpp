#include "detect/regions.h"

#include "core/launch.h"

namespace mixpl {

Tensor places_of(const Regions& regions, const RegionLevels& levels) {
  Tensor places = Tensor::empty({regions.size(), 2}, DType::i32, regions.device());
  MIXPL_DISPATCH(regions.device(), places_of, regions, levels, places);
  return places;
}

Regions refine_regions(const Regions& regions, const RegionDecoder& decoder, const Tensor& sizes,
                       const Tensor& left_out) {
  const Regions refined =
      MIXPL_DISPATCH(regions.device(), refine_regions, regions, decoder, sizes, left_out);
  if (is_traced()) {
    Trace::Numbers numbers;
    add_numbers(numbers, decoder.coder, "");
    note("refineRegions", {regions.boxes, decoder.deltas}, {refined.boxes}, std::move(numbers));
  }
  return refined;
}

}  // namespace mixpl
