// Queries of a decoder: where they start, the noisy ones that training adds, and what they find.
#pragma once

#include "core/options.h"
#include "core/philox.h"
#include "core/tensor.h"
#include "detect/detections.h"
#include "detect/set_matching.h"
#include "detect/truth.h"

namespace mixpl {

/// The `count` tokens of each image that score best: by falling score, equal ones by rising index;
/// a NaN comes last, as does a token with one among the logits that count.
///
/// @param logits f32|bf16 [N, S, C]
/// @param by     the class whose logit counts; < 0: the largest of all
/// @return       i32 [N * count]: n S + token, rows of [N, S, ...] as gather_rows takes them
/// @throws       ShapeError (fewer than `count` tokens), DTypeError, RangeError
Tensor best_tokens(const Tensor& logits, int64_t count, int64_t by = -1);

/// DINO's denoising queries (Zhang et al. 2023, arXiv:2203.03605, section 3.3).
struct DenoisingOptions {
  float label_noise = 0.5f;  // in [0, 2]; half of it is the share of labels that are drawn anew
  float box_noise = 1;       // >= 0, of half a side
  int64_t queries = 100;     // objects that the groups hold together, at least one group; < 2^16
};
struct DenoisingQueries {
  int64_t groups = 0;      // max(1, queries / most objects of an image), 1 without any
  int64_t group_size = 0;  // 2 * most objects: positives, then negatives; 0: there are no queries
  Tensor labels;           // i32 [N, D], D = groups * group_size: noisy classes; -1 in unused slots
  Tensor references;       // f32 [N, D, 4] (cx, cy, w, h) in shares; 0.5 in unused slots
  QueryTargets targets;    // positives learn their object, all others background
  int64_t count() const { return groups * group_size; }
};
/// Slot g of a group's halves is object g of the image. A label is drawn anew with probability
/// label_noise / 2, uniformly from all classes. Each of x1, y1, x2, y2 moves by
/// sign * a * (w or h) / 2 * box_noise, a in (0, 1) for positives, (1, 2) for negatives; then they
/// are clamped to the image. Which noise an object gets follows from `random`, image, group, half
/// and g alone, not from the batch around it. References pass through the inverse sigmoid with eps
/// 1e-3, as mmdetection's, so they lie in [1e-3, 1 - 1e-3] or so, as do the sides of a box that the
/// noise turned over.
///
/// @param sizes f32 [N, 2]: see ImageSize
/// @throws      ShapeError, DTypeError, DeviceError, RangeError
/// @source      mmdetection CdnQueryGenerator
DenoisingQueries denoising_queries(const Truth& truth, const Tensor& sizes, int64_t classes,
                                   const DenoisingOptions& options, const Philox& random);

/// u8 [1, T, T], T = D + queries: 1 where a query (row) must not see another (column): matching
/// queries no denoising ones, denoising ones no other group. Undefined without denoising queries.
Tensor denoising_mask(const DenoisingQueries& denoising, int64_t queries, Device device);

/// The max_per_image best (query, class) pairs of each image, fewer where there are not so many: no
/// suppression, no threshold. Equal scores by rising query * C + class. A pair whose logit is NaN
/// is none; one that is chosen but whose box is NaN, or has no area in the image,
/// is left out. Boxes are clipped to the image.
///
/// @param logits f32|bf16 [N, Q, C]; scores are their sigmoid
/// @param boxes  f32 [N, Q, 4] (cx, cy, w, h) in shares of the image
/// @param sizes  f32 [N, 2]: see ImageSize
/// @throws       ShapeError, DTypeError, DeviceError, RangeError
PendingDetections detect_queries(const Tensor& logits, const Tensor& boxes, const Tensor& sizes,
                                 int64_t max_per_image);

namespace cpu {
/// @param by >= 0, or -1
void best_tokens(const Tensor& logits, int64_t count, int64_t by, Tensor& rows);
/// Fills labels, references and targets.
void denoising_queries(const Truth& truth, const Tensor& sizes, int64_t classes,
                       const DenoisingOptions& options, const Philox& random,
                       DenoisingQueries& out);
void denoising_mask(const DenoisingQueries& denoising, Tensor& mask);
PendingDetections detect_queries(const Tensor& logits, const Tensor& boxes, const Tensor& sizes,
                                 int64_t max_per_image);
}  // namespace cpu
namespace cuda {
void best_tokens(const Tensor& logits, int64_t count, int64_t by, Tensor& rows);
void denoising_queries(const Truth& truth, const Tensor& sizes, int64_t classes,
                       const DenoisingOptions& options, const Philox& random,
                       DenoisingQueries& out);
void denoising_mask(const DenoisingQueries& denoising, Tensor& mask);
/// Ends with the start of the one copy that brings the detections to the host.
PendingDetections detect_queries(const Tensor& logits, const Tensor& boxes, const Tensor& sizes,
                                 int64_t max_per_image);
}  // namespace cuda

}  // namespace mixpl
