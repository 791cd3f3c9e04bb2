// Where a dense head says that boxes are: plain data, so that both devices decode with one function
// and only the few places that are candidates.
#pragma once

#include "core/tensor.h"
#include "core/trace.h"
#include "detect/box_coder.h"
#include "detect/points.h"
#include "ops/side_distribution/side_distribution_math.h"

namespace mixpl {

/// Numbers of either floating type, read one by one.
struct Numbers {
  const void* data = nullptr;
  bool bf16 = false;

  static Numbers of(const Tensor& t) { return {t.raw(), t.dtype() == DType::bf16}; }
  MIXPL_HD float operator[](int64_t i) const {
    return bf16 ? float(static_cast<const bfloat16*>(data)[i]) : static_cast<const float*>(data)[i];
  }
};

enum class BoxCoding : uint8_t {
  deltas,        // against anchors
  sides,         // distances of a grid's points to the sides, in units
  corners,       // the boxes themselves, in units
  distributions  // of such distances, of the centres of anchors, over bins
};

/// What a kernel or a loop sees of a BoxDecoder.
struct BoxDecoderView {
  BoxCoding coding;
  Numbers values;
  int64_t count;  // boxes an image
  const Box* anchors;
  DeltaCoder coder;
  PointGrid grid;
  float unit;
  const float* bin_values;
  int64_t bins;

  MIXPL_HD Box operator()(int64_t image, int64_t i) const {
    const int64_t row = image * count + i;
    if (coding == BoxCoding::distributions) {
      const Box a = anchors[i];
      return decode_sides((a.x1 + a.x2) * 0.5f, (a.y1 + a.y2) * 0.5f,
                          {side(row, 0), side(row, 1), side(row, 2), side(row, 3)});
    }
    const float v[4] = {values[4 * row], values[4 * row + 1], values[4 * row + 2],
                        values[4 * row + 3]};
    if (coding == BoxCoding::deltas) return coder.decode(anchors[i], {v[0], v[1], v[2], v[3]});
    const float u[4] = {v[0] * unit, v[1] * unit, v[2] * unit, v[3] * unit};
    if (coding == BoxCoding::corners) return {u[0], u[1], u[2], u[3]};
    return decode_sides(grid.x(i), grid.y(i), {u[0], u[1], u[2], u[3]});
  }

 private:
  MIXPL_HD float side(int64_t row, int k) const {
    const int64_t at = (4 * row + k) * bins;
    const double expected =
        values.bf16
            ? expected_side(static_cast<const bfloat16*>(values.data) + at, bin_values, bins)
            : expected_side(static_cast<const float*>(values.data) + at, bin_values, bins);
    return unit * static_cast<float>(expected);
  }
};

/// The boxes of one level of a head, not yet decoded. Make one with the functions below.
struct BoxDecoder {
  BoxCoding coding = BoxCoding::deltas;
  Tensor values;
  int64_t count = 0;  // boxes an image
  Tensor anchors;     // f32 [count, 4], of deltas and distributions
  DeltaCoder coder;   // of deltas
  PointGrid grid;     // of sides
  float unit = 1;     // pixels that a distance of 1 stands for
  Tensor bin_values;  // f32 [B], of distributions

  BoxDecoderView view() const;
  /// Adds what a trace says of level `level`: its values, anchors and bins, and numbers.
  void note(size_t level, std::vector<Tensor>& inputs, Trace::Numbers& numbers) const;
};

/// A head that regresses deltas against anchors.
/// @param deltas f32|bf16 [N, H, W, 4 A]; anchors f32 [H W A, 4]
/// @throws       ShapeError, DTypeError
BoxDecoder delta_decoder(const Tensor& deltas, const Tensor& anchors, const DeltaCoder& coder,
                         int64_t images);
/// A head that regresses distances of points to the sides of boxes.
/// @param sides f32|bf16 [N, H, W, 4], in units of the grid
/// @throws      ShapeError, DTypeError
BoxDecoder side_decoder(const Tensor& sides, const PointGrid& grid, int64_t images);
/// A head whose outputs are boxes.
/// @param boxes f32|bf16 [N, H, W, 4] xyxy, in units of so many pixels
/// @throws      ShapeError, DTypeError
BoxDecoder corner_decoder(const Tensor& boxes, float unit, int64_t images);
/// A head that regresses a distribution over distances for each side, measured from the centres of
/// anchors; only the boxes of candidates are ever computed.
/// @param logits     f32|bf16 [N, H, W, 4 B]; anchors f32 [H W, 4]
/// @param bin_values f32 [B], distances in units; unit in pixels
/// @throws           ShapeError, DTypeError
BoxDecoder distribution_decoder(const Tensor& logits, const Tensor& anchors,
                                const Tensor& bin_values, float unit, int64_t images);

}  // namespace mixpl
