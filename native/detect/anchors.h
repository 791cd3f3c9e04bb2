#pragma once

#include <map>
#include <tuple>
#include <vector>

#include "core/tensor.h"

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
                     CellStride stride = {});

/// Marks in `valid` [H W A] (1 = valid) the anchors of cells that begin beyond the padded image:
/// cells from ceil(pad / stride) on are 0. Returns false, and writes nothing, when all are valid.
/// @source mmdetection AnchorGenerator.valid_flags
bool mark_valid_anchors(const AnchorOptions& options, int level, int64_t height, int64_t width,
                        float pad_height, float pad_width, uint8_t* valid);

/// Which anchors of all levels in a row belong to cells that begin inside the padded image (1 =
/// valid); empty when all do.
/// @param maps per level a tensor of the head, [N, H, W, ...]
std::vector<uint8_t> valid_anchors(const AnchorOptions& options, const std::vector<Tensor>& maps,
                                   float pad_height, float pad_width);

/// Anchors by (level, height, width): training meets a few sizes again and again.
class AnchorGenerator {
 public:
  /// @throws ConfigError
  explicit AnchorGenerator(AnchorOptions options);
  const AnchorOptions& options() const { return options_; }
  Tensor level(int level, int64_t height, int64_t width, CellStride stride = {});
  /// Of every level, for a head's tensors [N, H, W, ...].
  std::vector<Tensor> levels(const std::vector<Tensor>& maps);

 private:
  AnchorOptions options_;
  std::map<std::tuple<int, int64_t, int64_t, double, double>, Tensor> cache_;
};

}  // namespace mixpl
