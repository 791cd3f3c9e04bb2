// Candidate boxes of a batch on the device: gathered in any order, sorted by score, suppressed
// within their classes. Every image has `capacity` places, of which its count are filled; nothing
// asks the device how many.
#pragma once

#include <vector>

#include "core/cuda/kernel.h"
#include "core/cuda/places.h"
#include "core/tensor.h"
#include "detect/box_math.h"
#include "detect/detections.h"

namespace mixpl::cuda {

/// A box that may become a detection. (high, low) says its place among the others of its image,
/// smaller first; no two have the same.
struct Candidate {
  uint64_t high, low;
  Box box;
  float score;
  int32_t label;
};

struct CandidatesView {
  Candidate* items;
  int32_t* counts;
  int64_t capacity;

  MIXPL_DEVICE void add(int64_t image, const Candidate& c) const {
    const int32_t at = atomic_add(&counts[image], 1);
    if (at < capacity) items[image * capacity + at] = c;
  }
  /// By a whole warp, with one image: the lanes that have one add theirs.
  MIXPL_DEVICE void add_by_warp(int64_t image, bool has, const Candidate& c) const {
    const int32_t at = take_places(has, &counts[image]).own;
    if (has && at < capacity) items[image * capacity + at] = c;
  }
  MIXPL_DEVICE int64_t count(int64_t image) const {
    return counts[image] < capacity ? counts[image] : capacity;
  }
};

struct Candidates {
  Tensor items;   // Candidate [N, capacity] as u8
  Tensor counts;  // i32 [N]
  int64_t images, capacity;

  /// Without any yet. @param capacity at least as many as will be added to an image
  Candidates(int64_t images, int64_t capacity, Device device);
  CandidatesView view() const;
};

/// Candidates by rank.
struct Ranked {
  Tensor boxes;   // f32 [N, capacity, 4]
  Tensor scores;  // f32 [N, capacity]
  Tensor labels;  // i32 [N, capacity]
  Tensor origin;  // i32 [N, capacity]: the lower half of Candidate::low
  Tensor counts;  // i32 [N]
  int64_t images() const { return boxes.size(0); }
  int64_t capacity() const { return boxes.size(1); }
};
/// What a kernel sees of them.
struct RankedView {
  Box* boxes;
  float* scores;
  int32_t *labels, *origin;
  const int32_t* counts;
  int64_t capacity;

  explicit RankedView(const Ranked& r)
      : boxes(reinterpret_cast<Box*>(r.boxes.data<float>())),
        scores(r.scores.data<float>()),
        labels(r.labels.data<int32_t>()),
        origin(r.origin.data<int32_t>()),
        counts(r.counts.data<int32_t>()),
        capacity(r.capacity()) {}
  MIXPL_DEVICE int64_t count(int64_t image) const {
    return counts[image] < capacity ? counts[image] : capacity;
  }
};
/// In the order of (high, low).
Ranked rank_candidates(const Candidates& candidates);

/// Ranks of the boxes that are kept, rising.
struct Kept {
  Tensor ranks;   // i32 [N, most]
  Tensor counts;  // i32 [N]
  int64_t most() const { return ranks.size(1); }
};

/// Non-maximum suppression as mixpl::nms, of every image at once.
/// @param labels all labels are in [0, labels)
/// @param most   keep at most so many an image; < 0: no limit
Kept suppress(const Ranked& ranked, int64_t labels, float iou_thr, int64_t most);

/// vote_boxes of the kept ones by all candidates. f32 [N, most, 4]
Tensor vote_boxes(const Ranked& ranked, const Kept& kept);

/// The kept boxes on the host: one copy, which is waited for when they are asked for.
/// @param boxes of the kept ones, f32 [N, most, 4]; undefined: as they were ranked
PendingDetections download(const Ranked& ranked, const Kept& kept, const Tensor& boxes = {});
/// All of them.
PendingDetections download(const Ranked& ranked);

}  // namespace mixpl::cuda
