// Rows of a layer, resampled from its source: RGB floats of 8-bit units, channels in the network's
// order, the layer's width. Two kinds of maps: axis-aligned ones (resize, flip, shift) are
// separable; all others are sampled point by point.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "image/compose/compose.h"

namespace mixpl::cpu {

/// Row buffers are this much longer than their values: pixels are stored four floats at a time.
constexpr int kRowSlack = 8;

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

/// Produces rows of one Sampling; neighbouring rows share their work. One per thread.
class RowSampler {
 public:
  void start(const Sampling& sampling);
  /// Row y of the layer (0 = its first) into `out` [width * 3 + kRowSlack].
  /// @returns the columns that show the source; the others hold the fill
  Span row(int y, float* out);

 private:
  Span aligned_row(int y, float* out);
  Span sampled_row(int y, float* out);
  const float* filtered(int source_row);
  void add_samples(double x_offset, double py);

  const Sampling* s_ = nullptr;
  std::vector<float> ring_;    // [taps, stride]: source rows after the horizontal pass
  std::vector<int> ring_row_;  // which source row each holds, -1: none
  size_t stride_ = 0;
  std::vector<uint8_t> padded_;  // the source's last row, with room for a four-byte read
  bool padded_ready_ = false;
  std::vector<float> sums_;  // [width, 4]
  Span hits_;
};

}  // namespace mixpl::cpu
