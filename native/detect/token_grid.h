// A pyramid's maps as one sequence of tokens, and what is known of each before a network looks:
// where it lies, whether it is padding, its position's encoding, the box it proposes.
#pragma once

#include <vector>

#include "core/tensor.h"
#include "detect/detections.h"
#include "ops/deformable_attention/deformable_attention.h"

namespace mixpl {

/// Cell (i, j) of a level is picture where the pixel floor(i H / h), floor(j W / w) of the padded
/// input is: what resizing a mask to the level by nearest neighbours gives.
struct TokenGrid {
  std::vector<MapSize> maps;  // of the levels, at most 8
  int64_t images = 0;
  Tensor valid;   // i32 [N, L, 2]: rows and columns of a level that are picture, on the device
  Tensor ratios;  // f32 [N, L, 2] (x, y): columns / w, rows / h
  bool padded = false;  // some cell of some image is padding

  int64_t tokens() const;
  /// Tokens of each level.
  std::vector<int64_t> counts() const;
};

/// @param padded height and width of the network input, pixels
/// @param sizes  of each image in it, pixels (host), > 0; a pixel that it covers in part is picture
/// @throws       ShapeError (no level or more than 8, an empty map), RangeError
TokenGrid token_grid(const std::vector<MapSize>& maps, MapSize padded,
                     const std::vector<ImageSize>& sizes, Device device);

/// u8 [N, S]: 1 where a token is padding; undefined where none is.
Tensor padding_mask(const TokenGrid& grid);

struct SineOptions {
  int64_t channels = 256;     // half for y, half for x; a multiple of 4
  float temperature = 10000;  // > 0
  float offset = 0;           // added to a cell's 1-based place before it is normalised
};
/// Sine encoding of a token's place among the valid cells of its level: place (1-based count, which
/// stays what it is behind the last valid cell) plus offset, over (the last place + 1e-6), times
/// 2 pi; channel k of a half is the sine (k even) or cosine (k odd) of it over
/// temperature^(2 floor(k / 2) / (channels / 2)); y's half first. In padding, which nobody looks
/// at, mmdetection counts otherwise: in a column of padding alone all places of y are 0.
///
/// @return dtype [N, S, channels]
/// @throws RangeError, DTypeError
/// @source mmdetection SinePositionalEncoding with normalize; Carion et al. 2020, arXiv:2005.12872
Tensor sine_positions(const TokenGrid& grid, const SineOptions& options, DType dtype);

/// f32 [N, S, 2] (x, y): centres of the cells in shares of the valid part of their level, which may
/// exceed 1 in padding: ((x + 0.5) / (ratio w), ...).
Tensor token_references(const TokenGrid& grid);

/// What each cell proposes before anything is learned: a box of side 0.05 * 2^level around its
/// centre.
struct TokenProposals {
  Tensor logits;  // f32 [N, S, 4]: inverse sigmoid of (cx, cy, w, h); +inf where `mask` is 1
  Tensor mask;    // u8 [N, S]: 1 in padding and where one of the four is not in (0.01, 0.99)
};
/// Centres are (x + 0.5, y + 0.5) over the valid columns and rows.
/// @source mmdetection DeformableDETR.gen_encoder_output_proposals
TokenProposals token_proposals(const TokenGrid& grid);

/// In which order the encodings of a box's numbers are put.
enum class CoordinateOrder : uint8_t { yxwh, xywh };
/// Sine encoding of boxes, `each` channels a number: value * 2 pi over
/// 10000^(2 floor(k / 2) / each), sine for even k, cosine for odd.
///
/// @param boxes f32 [N, Q, 4 | 2] (cx, cy, w, h) or (cx, cy)
/// @param each  even, >= 2
/// @param ratios f32 [N, L, 2]: boxes count times those of level 0, see TokenGrid; or undefined
/// @return      dtype [N, Q, 4 * each | 2 * each]; NaN for a number that is not finite
/// @grad        boxes: DAB-DETR's anchors learn through it
/// @throws      ShapeError, DTypeError, RangeError
/// @source      mmdetection coordinate_to_encoding (yxwh), get_proposal_pos_embed (xywh)
Tensor coordinate_encoding(const Tensor& boxes, int64_t each, CoordinateOrder order, DType dtype,
                           const Tensor& ratios = {});

struct PaddingView;
struct ReferenceView;
struct ProposalView;
struct SineView;
struct CoordinateView;

namespace cpu {
void mark_padding(int64_t images, const PaddingView& view);
void place_references(int64_t images, const ReferenceView& view);
void make_proposals(int64_t images, const ProposalView& view);
/// @param lines dtype [N, lines, channels / 2], filled here: each row's and each column's half
void encode_places(const SineView& view, Tensor& lines, Tensor& out);
void encode_coordinates(const CoordinateView& view, Tensor& out);
void encode_coordinates_backward(const CoordinateView& view, const Tensor& dout, Tensor& dboxes);
}  // namespace cpu

namespace cuda {
void mark_padding(int64_t images, const PaddingView& view);
void place_references(int64_t images, const ReferenceView& view);
void make_proposals(int64_t images, const ProposalView& view);
void encode_places(const SineView& view, Tensor& lines, Tensor& out);
void encode_coordinates(const CoordinateView& view, Tensor& out);
void encode_coordinates_backward(const CoordinateView& view, const Tensor& dout, Tensor& dboxes);
}  // namespace cuda

}  // namespace mixpl
