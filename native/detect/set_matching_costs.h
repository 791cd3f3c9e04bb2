// What a query costs for an object, and what loops and kernels see of matching; once for both
// devices, with elementary functions of our own, so that costs have the same bits on both.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "core/math.h"
#include "detect/set_matching.h"

namespace mixpl {

/// Costs are held within ± this: far beyond those of boxes within an image, and few enough digits
/// that f64 sums of hundreds keep those of f32.
constexpr float kMostCost = 1e6f;

/// ln x for normal x > 0 within 2e-7 of the larger of 1 and the result; NaN for NaN, -88.03 for 0.
MIXPL_HD float log_f32(float x) {
  const int32_t bits = std::bit_cast<int32_t>(x);
  const int32_t exponent = (bits >> 23) - 127;
  const float mantissa = std::bit_cast<float>((bits & 0x7fffff) | 0x3f800000);
  const float y = fmaf(static_cast<float>(exponent), 0.693147182f, log1p_unit(mantissa - 1));
  return x < INFINITY ? y : x;
}

/// x^n for x in [0, 1], n >= 0.
MIXPL_HD float unit_power(float x, float n) {
  return n == 2 ? x * x : n == 0 ? 1.0f : exp_f32(n * log_f32(x));
}

/// alpha (1 - p)^gamma (-ln(p + eps)) - (1 - alpha) p^gamma (-ln(1 - p + eps)). 1 - p is
/// sigmoid(-x), which f32 keeps where p rounds to 1.
MIXPL_HD float focal_cost(float x, const SetMatchingOptions& o) {
  const float e = exp_f32(-fabsf(x)), larger = 1 / (1 + e), smaller = e * larger;
  const float p = x >= 0 ? larger : smaller, q = x >= 0 ? smaller : larger;
  return (1 - o.alpha) * unit_power(p, o.gamma) * log_f32(q + o.eps) -
         o.alpha * unit_power(q, o.gamma) * log_f32(p + o.eps);
}

struct alignas(16) CentredBox {
  float cx, cy, w, h;
};
MIXPL_HD CentredBox centred(Box b) {
  return {(b.x1 + b.x2) * 0.5f, (b.y1 + b.y2) * 0.5f, b.x2 - b.x1, b.y2 - b.y1};
}
MIXPL_HD Box corners(CentredBox b) {
  return {b.cx - 0.5f * b.w, b.cy - 0.5f * b.h, b.cx + 0.5f * b.w, b.cy + 0.5f * b.h};
}
MIXPL_HD Box shares_of(Box b, ImageSize size) {
  return {b.x1 / size.width, b.y1 / size.height, b.x2 / size.width, b.y2 / size.height};
}
MIXPL_HD Box pixels_of(Box b, ImageSize size) {
  return {b.x1 * size.width, b.y1 * size.height, b.x2 * size.width, b.y2 * size.height};
}

/// A box in pixels, and the four numbers whose differences are the L1 cost.
struct ComparedBox {
  Box pixels;
  float a, b, c, d;
};
MIXPL_HD ComparedBox compared(Box pixels, Box shares, CentredBox centre, bool xyxy) {
  if (xyxy) return {pixels, shares.x1, shares.y1, shares.x2, shares.y2};
  return {pixels, centre.cx, centre.cy, centre.w, centre.h};
}
MIXPL_HD ComparedBox compared_object(Box pixels, ImageSize size, bool xyxy) {
  const Box shares = shares_of(pixels, size);
  return compared(pixels, shares, centred(shares), xyxy);
}
MIXPL_HD ComparedBox compared_query(CentredBox box, ImageSize size, bool xyxy) {
  const Box shares = corners(box);
  return compared(pixels_of(shares, size), shares, box, xyxy);
}

MIXPL_HD float pair_cost(float logit, const ComparedBox& query, const ComparedBox& object,
                         const SetMatchingOptions& o) {
  const float apart = fabsf(query.a - object.a) + fabsf(query.b - object.b) +
                      fabsf(query.c - object.c) + fabsf(query.d - object.d);
  const float cost = o.classification * focal_cost(logit, o) + o.boxes * apart -
                     o.iou * box_similarity(query.pixels, object.pixels, IouKind::giou);
  const float held = cost < kMostCost ? cost : kMostCost;  // NaN, too
  return held > -kMostCost ? held : -kMostCost;
}

/// Bounds what kernels take by value; more layers take more launches.
constexpr int kMostLayers = 16;

/// What loops and kernels see of layers of predictions.
struct MatchView {
  struct Layer {
    const void* logits;
    const CentredBox* boxes;
    int32_t *labels, *objects;  // null where only costs are asked for, as the next two
    CentredBox* targets;
    float* weights;
  };
  Layer layers[kMostLayers];
  int64_t num_layers, images, queries, classes;
  DType logits;
  TruthView truth;
  int64_t objects, most;  // of the batch, and of the image that has most of them
  const ImageSize* sizes;
  SetMatchingOptions options;

  /// The fewer are rows of the assignment: objects, if there are no more of them than queries.
  MIXPL_HD bool objects_are_rows(int64_t image) const { return truth.count(image) <= queries; }
  /// @param object of the image, < 0: none
  MIXPL_HD void set_target(const Layer& layer, int64_t image, int64_t query, int32_t object) const {
    const int64_t at = image * queries + query;
    if (object < 0) {
      layer.labels[at] = static_cast<int32_t>(classes);
      layer.targets[at] = {0, 0, 0, 0};
      layer.weights[at] = 0;
      layer.objects[at] = -1;
      return;
    }
    const int32_t in_batch = truth.begin(image) + object;
    layer.labels[at] = truth.labels[in_batch];
    layer.targets[at] = centred(shares_of(truth.boxes[in_batch], sizes[image]));
    layer.weights[at] = 1;
    layer.objects[at] = in_batch;
  }
};

}  // namespace mixpl
