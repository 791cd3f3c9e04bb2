#pragma once

#include <array>
#include <map>
#include <vector>

#include "core/tensor.h"
#include "detect/box_math.h"
#include "detect/pyramid.h"

namespace mixpl {

/// Anchors of a pyramid. Level l has base boxes of side `strides[l] s` for every scale s, or
/// `sizes[l]` where those are given; every ratio r = h / w turns a side b into w = b / sqrt(r), h =
/// b sqrt(r). Within a cell ratios are the outer loop, sides the inner one.
struct AnchorOptions {
  std::vector<double> strides{8, 16, 32, 64, 128};
  std::vector<double> ratios{0.5, 1, 2};
  std::vector<double> scales{4, 5.039684199579493, 6.3496042078727974};  // 4 2^(i/3)
  std::vector<std::vector<double>> sizes;  // per level, in pixels; replaces strides x scales
  double center_offset = 0;                // in strides: 0 = the cell's top-left corner
  bool round = false;                      // corners of base boxes to integers, halves to even

  /// Base boxes of a cell, the same for every level.
  int per_cell() const {
    return static_cast<int>(ratios.size() * (sizes.empty() ? scales.size() : sizes[0].size()));
  }
  /// @throws ConfigError
  void validate() const;
};

/// Pixels from one cell to the next.
struct CellStride {
  double y = 0, x = 0;
};

/// f32 [H W A, 4] xyxy; cells row-major, within a cell ratios outer, sides inner.
/// @param stride between cells; default: strides[level] both ways
/// @source mmdetection AnchorGenerator; with sizes, round and strides of (padded image / feature)
///         torchvision's
Tensor level_anchors(const AnchorOptions& options, int level, int64_t height, int64_t width,
                     CellStride stride = {}, Device device = {});

/// Anchors of all levels in a row, and each level as a part of that.
struct Anchors {
  Tensor all;                  // f32 [A, 4]
  std::vector<Tensor> levels;  // f32 [A_l, 4]
  Pyramid pyramid;

  /// Of one tensor f32 [A_l, 4] a level; copies them. @throws ShapeError, DTypeError
  static Anchors join(const char* op, const std::vector<Tensor>& levels);
  /// Makes `levels` from `all` and `pyramid`.
  void split();
};

/// Marks in `valid` [H W A] (1 = valid) the anchors of cells that begin beyond the padded image:
/// cells from ceil(pad / stride) on are 0. Returns false, and writes nothing, when all are valid.
/// @source mmdetection AnchorGenerator.valid_flags
bool mark_valid_anchors(const AnchorOptions& options, int level, int64_t height, int64_t width,
                        float pad_height, float pad_width, uint8_t* valid);

/// Which anchors belong to cells that begin inside the padded image: u8 [N, A], 1 = valid, all
/// levels in a row; undefined when all do.
/// @param maps per level a tensor of the head, [N, H, W, ...], on the device of the result
/// @param pads per image height and width
Tensor valid_anchors(const AnchorOptions& options, const std::vector<Tensor>& maps,
                     const std::vector<std::array<float, 2>>& pads);

/// Remembers what it made, up to 32 MB: training meets some sizes again and again.
class AnchorGenerator {
 public:
  /// @throws ConfigError
  explicit AnchorGenerator(AnchorOptions options);
  const AnchorOptions& options() const { return options_; }
  Tensor level(int level, int64_t height, int64_t width, CellStride stride = {},
               Device device = {});
  /// Of every level, for a head's tensors [N, H, W, ...] and on their device.
  /// @param strides between the cells of each level; empty: as the options say
  Anchors levels(const std::vector<Tensor>& maps, const std::vector<CellStride>& strides = {});

 private:
  struct Grid {
    int level;
    int64_t height, width;
    CellStride stride;
  };
  Anchors row(const std::vector<Grid>& grids, Device device);

  AnchorOptions options_;
  std::map<std::vector<double>, Anchors> kept_;
  int64_t kept_bytes_ = 0;
};

/// What loops and kernels make anchors from.
struct AnchorView {
  const Box* base;  // `per` boxes of a cell
  int64_t per, width;
  CellStride stride;
  Box* out;

  MIXPL_HD void operator()(int64_t i) const {
    const int64_t cell = i / per;
    const float cx = static_cast<float>((cell % width) * stride.x),
                cy = static_cast<float>((cell / width) * stride.y);
    const Box b = base[i % per];
    out[i] = {b.x1 + cx, b.y1 + cy, b.x2 + cx, b.y2 + cy};
  }
};

/// What loops and kernels tell valid anchors by.
struct ValidView {
  Pyramid pyramid;
  int64_t per;                 // anchors of a cell
  int64_t width[kMostLevels];  // cells of a row
  const int32_t* inside;       // [N, L, 2]: rows and columns of cells inside the padded image
  uint8_t* out;

  MIXPL_HD void operator()(int64_t i) const {
    const Place p = place_of(pyramid, i);
    const int64_t cell = p.cell / per;
    const int32_t* most = inside + 2 * (p.image * pyramid.levels + p.level);
    out[i] = cell / width[p.level] < most[0] && cell % width[p.level] < most[1];
  }
};

namespace cpu {
void make_anchors(int64_t count, const AnchorView& view);
void mark_valid(int64_t count, const ValidView& view);
}  // namespace cpu
namespace cuda {
void make_anchors(int64_t count, const AnchorView& view);
void mark_valid(int64_t count, const ValidView& view);
}  // namespace cuda

}  // namespace mixpl
