#include "eval/coco_matching.h"

#include <algorithm>
#include <cmath>

namespace mixpl::eval {
namespace {

/// Intersection over union of two xywh boxes, over the detection's own area for a crowd. The order
/// of operations is that of bbIou in maskApi.c: the result has its bits, overflow included.
double iou_xywh(const double* dt, const double* gt, bool crowd) {
  const double w = std::fmin(dt[2] + dt[0], gt[2] + gt[0]) - std::fmax(dt[0], gt[0]);
  if (w <= 0) return 0;
  const double h = std::fmin(dt[3] + dt[1], gt[3] + gt[1]) - std::fmax(dt[1], gt[1]);
  if (h <= 0) return 0;
  const double dt_area = dt[2] * dt[3], gt_area = gt[2] * gt[3], intersection = w * h;
  return intersection / (crowd ? dt_area : dt_area + gt_area - intersection);
}

bool outside(double area, AreaRange range) { return area < range.low || area > range.high; }

struct Candidate {
  int32_t slot;  // position in the ignore-sorted ground truths of the image
  double iou;
};

constexpr double kAlmostOne = 1 - 1e-10;  // evaluateImg: an IoU of 1 reaches any threshold

/// One image: reused between images to spare allocations.
struct ImageMatcher {
  std::vector<int32_t> slots;  // ground truths, those that count first, else in file order
  std::vector<uint8_t> slot_ignored, slot_crowd;
  std::vector<Candidate> candidates;  // of one detection, ascending slots
  std::vector<uint8_t> taken;         // [T, slots]

  int64_t sort_slots(const ClassGroup& group, const ImageGroup& image, const GroundTruths& gt,
                     AreaRange range) {
    slots.clear();
    slot_ignored.clear();
    slot_crowd.clear();
    int64_t counting = 0;
    for (const bool ignored : {false, true}) {
      for (int64_t i = image.ground_truth_begin; i < image.ground_truth_end; ++i) {
        const int32_t index = group.ground_truths[i];
        if ((gt.ignore[index] != 0 || outside(gt.areas[index], range)) != ignored) continue;
        slots.push_back(index);
        slot_ignored.push_back(ignored);
        slot_crowd.push_back(gt.ignore[index]);
      }
      if (!ignored) counting = static_cast<int64_t>(slots.size());
    }
    return counting;
  }

  /// The slots that can be taken at some threshold. Areas that overflow make an IoU NaN, and in the
  /// reference's comparisons every slot passes once NaN is the best: then all are candidates.
  void find_candidates(const double* dt_box, const GroundTruths& gt, double lowest_threshold) {
    candidates.clear();
    bool overflow = false;
    for (size_t s = 0; s < slots.size(); ++s) {
      const double iou = iou_xywh(dt_box, &gt.boxes[4 * slots[s]], slot_crowd[s]);
      overflow = overflow || std::isnan(iou);
      if (iou >= lowest_threshold) candidates.push_back({static_cast<int32_t>(s), iou});
    }
    if (!overflow) return;
    candidates.clear();
    for (size_t s = 0; s < slots.size(); ++s)
      candidates.push_back(
          {static_cast<int32_t>(s), iou_xywh(dt_box, &gt.boxes[4 * slots[s]], slot_crowd[s])});
  }

  /// Slot that the detection takes at this threshold, or -1. Ties go to the later slot.
  int32_t best_slot(double threshold, const uint8_t* slot_taken) const {
    double best = std::min(threshold, kAlmostOne);
    int32_t match = -1;
    for (const Candidate& c : candidates) {
      if (slot_taken[c.slot] && !slot_crowd[c.slot]) continue;
      if (match >= 0 && !slot_ignored[match] && slot_ignored[c.slot]) break;
      if (c.iou < best) continue;
      best = c.iou;
      match = c.slot;
    }
    return match;
  }
};

}  // namespace

ClassMatches match_class(const ClassGroup& group, const GroundTruths& gt, const DetectedBoxes& dt,
                         const std::vector<double>& iou_thresholds, AreaRange range) {
  const int64_t num_thresholds = static_cast<int64_t>(iou_thresholds.size());
  const int64_t num_detections = static_cast<int64_t>(group.detections.size());
  double lowest = kAlmostOne;
  for (const double t : iou_thresholds) lowest = std::min(lowest, t);

  ClassMatches out;
  out.verdicts.resize(num_thresholds * num_detections);
  ImageMatcher matcher;
  for (const ImageGroup& image : group.images) {
    out.num_ground_truths += matcher.sort_slots(group, image, gt, range);
    const int64_t num_slots = static_cast<int64_t>(matcher.slots.size());
    matcher.taken.assign(num_thresholds * num_slots, 0);
    for (int64_t d = image.detection_begin; d < image.detection_end; ++d) {
      const double* box = &dt.boxes[4 * group.detections[d]];
      const Verdict unmatched =
          outside(box[2] * box[3], range) ? Verdict::ignored : Verdict::false_positive;
      matcher.find_candidates(box, gt, lowest);
      for (int64_t t = 0; t < num_thresholds; ++t) {
        Verdict verdict = unmatched;
        uint8_t* taken = matcher.taken.data() + t * num_slots;
        const int32_t slot =
            matcher.candidates.empty() ? -1 : matcher.best_slot(iou_thresholds[t], taken);
        if (slot >= 0) {
          taken[slot] = 1;
          // A match is stored by the annotation's id, and 0 also means "none".
          const bool readable = gt.ids.empty() || gt.ids[matcher.slots[slot]] != 0;
          if (matcher.slot_ignored[slot])
            verdict = Verdict::ignored;
          else if (readable)
            verdict = Verdict::true_positive;
        }
        out.verdicts[t * num_detections + d] = verdict;
      }
    }
  }
  return out;
}

}  // namespace mixpl::eval
