#pragma once

#include "core/parallel.h"
#include "detect/pyramid.h"

namespace mixpl {

/// f(place) for every anchor or point of a batch, in parallel on the host.
template <typename F>
void for_each_place(const Pyramid& pyramid, int64_t images, F&& f) {
  constexpr int64_t kGrain = 16384;
  parallel_chunks(images * pyramid.count(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end;) {
      Place place = place_of(pyramid, i);  // divides: once a level and image
      const int64_t stop = std::min(end, i + pyramid.size(place.level) - place.cell);
      for (; i < stop; ++i, ++place.in_row, ++place.cell, ++place.at) f(place);
    }
  });
}

}  // namespace mixpl
