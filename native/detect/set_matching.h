// One query for each object: the optimal assignment that DETR's family learns from.
#pragma once

#include <vector>

#include "core/tensor.h"
#include "detect/detections.h"
#include "detect/truth.h"

namespace mixpl {

/// Cost of query q for object g: classification * focal + boxes * L1 + iou * (-GIoU).
///   focal = alpha (1 - p)^gamma (-ln(p + eps)) - (1 - alpha) p^gamma (-ln(1 - p + eps)),
///     p = sigmoid of the logit of g's class,
///   L1 between (cx, cy, w, h), or (x1, y1, x2, y2) with xyxy_l1, in shares of the image,
///   GIoU between the boxes in pixels.
struct SetMatchingOptions {
  float classification = 2, boxes = 5, iou = 2;
  float alpha = 0.25f, gamma = 2;
  float eps = 1e-12f;
  bool xyxy_l1 = false;
};

/// What each query is to learn.
struct QueryTargets {
  Tensor labels;   // i32 [N, Q]: a class, or C (background)
  Tensor boxes;    // f32 [N, Q, 4] (cx, cy, w, h) in shares of the image; 0 without an object
  Tensor weights;  // f32 [N, Q]: 1 for queries with an object, else 0
  Tensor objects;  // i32 [N, Q]: index of the object among all of the batch (Truth), or -1
  int64_t positives = 0;  // queries with an object: the host knows without asking the device
};

/// Assigns the objects of each image to queries so that the sum of costs is least, an object and a
/// query at most once: min(G, Q) pairs. One entry of the lists a layer of predictions, all in one
/// launch on a GPU, which is not waited for. Of assignments with equal sums which one is chosen
/// follows from the costs alone, the same on both devices; costs are held within ±1e6, and NaN
/// counts as 1e6.
///
/// @param logits per layer f32|bf16 [N, Q, C]
/// @param boxes  per layer f32 [N, Q, 4] (cx, cy, w, h) in shares of the image
/// @param sizes  f32 [N, 2]: see ImageSize
/// @throws       ShapeError, DTypeError, DeviceError, RangeError (weights < 0, alpha, gamma, eps)
/// @source       Carion et al. 2020, arXiv:2005.12872; mmdetection HungarianAssigner; solved by
///               shortest augmenting paths (Crouse 2016, doi:10.1109/TAES.2016.140952)
std::vector<QueryTargets> match_queries(const std::vector<Tensor>& logits,
                                        const std::vector<Tensor>& boxes, const Truth& truth,
                                        const Tensor& sizes, const SetMatchingOptions& options);

/// The costs that it weighs, of one layer: f32 [sum G, Q]. Parameters and errors as above.
Tensor query_costs(const Tensor& logits, const Tensor& boxes, const Truth& truth,
                   const Tensor& sizes, const SetMatchingOptions& options);

struct MatchView;  // set_matching_costs.h

namespace cpu {
void query_costs(const MatchView& view, float* costs);
void match_queries(const MatchView& view);
}  // namespace cpu
namespace cuda {
void query_costs(const MatchView& view, float* costs);
void match_queries(const MatchView& view);
}  // namespace cuda

}  // namespace mixpl
