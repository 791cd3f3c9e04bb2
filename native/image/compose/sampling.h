// Where the pixels of a layer come from; worked out on the host for either device. Two kinds of
// maps: axis-aligned ones (resize, flip, shift) are separable; all others are sampled point by
// point.
#pragma once

#include <array>
#include <vector>

#include "image/compose/compose.h"

namespace mixpl {

struct Span {
  int begin = 0, end = 0;
  bool empty() const { return begin >= end; }
};

/// What each coordinate of an axis reads: `taps` neighbouring source pixels from first[i] on.
struct Axis {
  int taps = 1;
  Span inside;                 // coordinates whose centre falls on the source
  std::vector<int> first;      // [inside]
  std::vector<float> weights;  // [inside, taps]; sum 1
  bool shifts = false;         // coordinate i is source pixel first[0] + i, as it is
};

/// @param begin, end  coordinates of the composition
/// @param scale, offset  source position of coordinate x: scale * x + offset; scale != 0
/// @param size        pixels of the source
Axis make_axis(int begin, int end, double scale, double offset, int size, bool antialias);

/// A layer's geometry, ready for any of its rows.
struct Sampling {
  ComposeSource source;
  int x1 = 0, y1 = 0, width = 0, height = 0;
  bool bgr = false;
  std::array<float, 3> fill{};  // network's order
  bool aligned = false;
  Axis columns, rows;           // aligned
  std::array<double, 9> map{};  // otherwise; divided by its last entry when affine
  bool affine = false;
  int samples = 1;  // per axis and pixel, where the layer shrinks
};
Sampling make_sampling(const ComposeLayer& layer, const ComposeSource& source, bool bgr);

}  // namespace mixpl
