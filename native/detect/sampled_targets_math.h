// Loops over sampled anchors and regions, once for both devices.
#pragma once

#include "detect/pyramid.h"
#include "detect/regions_math.h"
#include "detect/sampled_targets.h"

namespace mixpl {

struct AnchorTargetView {
  Pyramid pyramid;
  const Box* anchors;
  const int32_t* assigned;
  const uint8_t* drawn;
  TruthView truth;
  DeltaCoder coder;
  PerLevel<float> objectness, sampled, positive;
  PerLevel<Delta> deltas;

  MIXPL_HD void operator()(const Place& p) const {
    const int64_t at = p.image * pyramid.count() + p.in_row;
    const bool counts = drawn[at] != 0, has_box = counts && assigned[at] >= 0;
    sampled[p.level][p.at] = counts ? 1.0f : 0.0f;
    objectness[p.level][p.at] = positive[p.level][p.at] = has_box ? 1.0f : 0.0f;
    deltas[p.level][p.at] =
        has_box ? coder.encode(anchors[p.in_row], truth.boxes[truth.begin(p.image) + assigned[at]])
                : Delta{0, 0, 0, 0};
  }
  MIXPL_HD void operator()(int64_t i) const { (*this)(place_of(pyramid, i)); }
};

struct InsideView {
  const Box* anchors;
  int64_t count;
  const uint8_t* valid;  // null: all
  const ImageSize* sizes;
  float border;
  uint8_t* inside;

  MIXPL_HD void operator()(int64_t i) const {
    const Box a = anchors[i % count];
    const ImageSize size = sizes[i / count];
    inside[i] = (!valid || valid[i]) && a.x1 >= -border && a.y1 >= -border &&
                a.x2 < size.width + border && a.y2 < size.height + border;
  }
};

struct RegionDeltaView {
  const Box *regions, *wanted;
  const int32_t* labels;
  int64_t classes, each;
  DeltaCoder coder;
  Delta* deltas;
  float* weights;

  MIXPL_HD void operator()(int64_t i) const {
    const int64_t r = i / each, label = labels[r];
    const bool mine = label >= 0 && label < classes && (each == 1 || label == i % each);
    deltas[i] = mine ? coder.encode(regions[r], wanted[r]) : Delta{0, 0, 0, 0};
    weights[i] = mine ? 1.0f : 0.0f;
  }
};

/// Candidates of a batch: of each image its ground truth, then its proposals.
struct RegionCandidates {
  Tensor boxes;  // f32 [N, C, 4]
  Tensor valid;  // u8 [N, C]
};
struct CandidateView {
  TruthView truth;
  const Box* proposals;
  const int32_t* counts;  // of proposals
  const int32_t* first;   // row of each image's first one; null: n * places
  int64_t places;
  int64_t most;  // candidates an image: C
  Box* boxes;
  uint8_t* valid;

  MIXPL_HD void operator()(int64_t i) const {
    const int64_t n = i / most, c = i % most, own = truth.count(n);
    const bool is = c - own < counts[n];
    valid[i] = is;
    if (c < own)
      boxes[i] = truth.boxes[truth.begin(n) + c];
    else
      boxes[i] = is ? proposals[(first ? first[n] : n * places) + c - own] : Box{0, 0, 0, 0};
  }
};

/// The ground truth is its own match, whatever stands beside it.
struct OwnMatchView {
  TruthView truth;
  int64_t most;
  int32_t* assigned;  // [N, most]
  MIXPL_HD void operator()(int64_t i) const {
    if (i % most < truth.count(i / most)) assigned[i] = static_cast<int32_t>(i % most);
  }
};

/// Writes rows of RegionTargets.
struct RegionRowView {
  const Box* candidates;    // [N, most]
  const int32_t* assigned;  // [N, most]
  int64_t most;
  TruthView truth;
  int32_t classes;
  Box *boxes, *wanted;
  int32_t *image, *labels;
  uint8_t* is_truth;

  /// Region `row` is candidate c of image n.
  MIXPL_HD void fill(int64_t row, int64_t n, int64_t c) const {
    const int32_t own = assigned[n * most + c];
    const int64_t box = truth.begin(n) + own;
    boxes[row] = candidates[n * most + c];
    image[row] = static_cast<int32_t>(n);
    wanted[row] = own >= 0 ? truth.boxes[box] : Box{0, 0, 0, 0};
    labels[row] = own >= 0 ? truth.labels[box] : classes;
    is_truth[row] = c < truth.count(n);
  }
  MIXPL_HD void leave_empty(int64_t row) const {
    boxes[row] = wanted[row] = {0, 0, 0, 0};
    image[row] = labels[row] = -1;
    is_truth[row] = 0;
  }
};
/// Uninitialised, of so many rows.
RegionTargets region_rows(int64_t rows, int64_t images, Device device);
RegionRowView rows_of(const RegionTargets& targets, const RegionCandidates& candidates,
                      const Tensor& assigned, const Truth& truth, int64_t classes);

namespace cpu {
/// 1 in `drawn` u8 [N, A] for what was drawn, else 0; `count` f32 [1]: see num_sampled.
void mark_sampled(const Tensor& assigned, const SamplerOptions& sampler, int64_t least,
                  const Philox& random, Tensor& drawn, Tensor& count);
void fill_anchor_targets(int64_t images, const AnchorTargetView& view);
void mark_inside(int64_t count, const InsideView& view);
RegionCandidates join_candidates(const Regions& proposals, const Truth& truth);
/// Matches the ground truth with itself in `assigned` i32 [N, C], then draws.
RegionTargets draw_regions(const RegionCandidates& candidates, Tensor& assigned, const Truth& truth,
                           int64_t classes, const SamplerOptions& sampler, const Philox& random);
void fill_region_deltas(int64_t count, const RegionDeltaView& view);
}  // namespace cpu
namespace cuda {
void mark_sampled(const Tensor& assigned, const SamplerOptions& sampler, int64_t least,
                  const Philox& random, Tensor& drawn, Tensor& count);
void fill_anchor_targets(int64_t images, const AnchorTargetView& view);
void mark_inside(int64_t count, const InsideView& view);
RegionCandidates join_candidates(const Regions& proposals, const Truth& truth);
RegionTargets draw_regions(const RegionCandidates& candidates, Tensor& assigned, const Truth& truth,
                           int64_t classes, const SamplerOptions& sampler, const Philox& random);
void fill_region_deltas(int64_t count, const RegionDeltaView& view);
}  // namespace cuda

}  // namespace mixpl
