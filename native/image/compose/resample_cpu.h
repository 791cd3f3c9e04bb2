// Rows of a layer, resampled from its source: RGB floats of 8-bit units, channels in the network's
// order, the layer's width.
#pragma once

#include <cstdint>
#include <vector>

#include "image/compose/sampling.h"

namespace mixpl::cpu {

/// Row buffers are this much longer than their values: pixels are stored four floats at a time.
constexpr int kRowSlack = 8;

/// Produces rows of one Sampling; neighbouring rows share their work. One per thread.
class RowSampler {
 public:
  void start(const Sampling& sampling);
  /// Row y where it is a stretch of the source as it is, else null.
  const uint8_t* bytes(int y) const;
  /// Row y of the layer (0 = its first) into `out` [width * 3 + kRowSlack].
  /// @returns the columns that show the source; the others hold the fill
  Span row(int y, float* out);

 private:
  Span aligned_row(int y, float* out);
  Span sampled_row(int y, float* out);
  const float* filtered(int source_row);
  template <typename Put>
  void sample(double x_offset, double py, Put&& put);

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
