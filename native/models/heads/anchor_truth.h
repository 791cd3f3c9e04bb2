// What the heads with one square anchor a cell learn from: the same for a batch of images and for
// the named ops that compute their losses alone.
#pragma once

#include <vector>

#include "core/options.h"
#include "detect/anchors.h"
#include "models/detector.h"
#include "models/heads/dense_head.h"

namespace mixpl {

struct AnchorTruth {
  Anchors anchors;
  std::vector<double> strides;  // per level
  Tensor valid;                 // u8 [N, A]; undefined = all
  Truth truth;
  int64_t classes = 0;
};

/// @param maps per level a tensor of the head, [N, H, W, ...]
AnchorTruth anchor_truth(const ImageBatch& images, const std::vector<Target>& targets,
                         const std::vector<Tensor>& maps, AnchorGenerator& anchors,
                         int64_t classes);

/// A head's outputs with their truth, as inputs of a named op.
struct AnchorHeadCase {
  DenseOutputs out;
  AnchorTruth truth;
};
/// Inputs: logits [N, H, W, C], boxes [N, H, W, ...] and, if `with_quality`, quality [N, H, W, 1]
/// of every level in turn, then boxes and labels of every image in turn. Options: { classes,
/// strides, octaveBaseScale (8), padHeights, padWidths (of every image; all anchors are valid
/// without) }.
/// @throws ShapeError, DTypeError, RangeError, ConfigError in the name of `op`
AnchorHeadCase read_anchor_head_case(const char* op, const std::vector<Tensor>& in,
                                     const Options& options, bool with_quality);
/// The tensors of losses in order, as outputs of a named op.
std::vector<Tensor> tensors_of(const Losses& losses);

}  // namespace mixpl
