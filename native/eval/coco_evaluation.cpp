#include "eval/coco_evaluation.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/parallel.h"
#include "eval/coco_matching.h"

namespace mixpl::eval {
namespace {

constexpr const char* kOp = "evaluateCoco";
// numpy.spacing(1), added to the denominator of the precision.
constexpr double kEps = std::numeric_limits<double>::epsilon();

void check_options(const CocoOptions& options) {
  if (options.iou_thresholds.empty() || options.recall_points.empty() ||
      options.area_ranges.empty() || options.max_detections.empty())
    throw RangeError(str(kOp,
                         ": iouThresholds, recallPoints, areaRanges and maxDetections must each "
                         "hold at least one entry"));
  for (const double t : options.iou_thresholds)
    if (!(t >= 0 && t <= 1))
      throw RangeError(str(kOp, ": iouThresholds must be in [0, 1], got ", t));
  double previous = 0;
  for (const double r : options.recall_points) {
    if (!(r >= previous && r <= 1))
      throw RangeError(str(kOp, ": recallPoints must ascend within [0, 1], got ", r));
    previous = r;
  }
  for (const AreaRange range : options.area_ranges)
    if (!(range.low <= range.high))
      throw RangeError(
          str(kOp, ": areaRanges must be [low, high], got [", range.low, ", ", range.high, "]"));
  int32_t least = 1;
  for (const int32_t m : options.max_detections) {
    if (m < least)
      throw RangeError(str(kOp, ": maxDetections must be positive and ascend, got ", m));
    least = m;
  }
}

/// Writes one (class, area range): precision, scores and recall of every threshold and limit.
class Accumulator {
 public:
  Accumulator(const CocoOptions& options, int64_t num_classes, CocoTables& tables)
      : options_(options),
        num_classes_(num_classes),
        num_areas_(static_cast<int64_t>(options.area_ranges.size())),
        num_limits_(static_cast<int64_t>(options.max_detections.size())),
        tables_(tables) {}

  void add(const ClassGroup& group, const DetectedBoxes& dt, const ClassMatches& matches,
           int64_t label, int64_t area) {
    const auto num_points = static_cast<int64_t>(options_.recall_points.size());
    const auto num_detections = static_cast<int64_t>(group.detections.size());
    for (int64_t m = 0; m < num_limits_; ++m) {
      select(group, dt, options_.max_detections[m]);
      for (size_t t = 0; t < options_.iou_thresholds.size(); ++t) {
        const Verdict* verdicts = matches.verdicts.data() + t * num_detections;
        trace(verdicts, static_cast<double>(matches.num_ground_truths));
        const int64_t row = ((t * num_classes_ + label) * num_areas_ + area) * num_limits_ + m;
        tables_.recall[row] = recall_.empty() ? 0 : recall_.back();
        size_t i = 0;  // first position whose recall reaches the point
        for (int64_t r = 0; r < num_points; ++r) {
          while (i < recall_.size() && recall_[i] < options_.recall_points[r]) ++i;
          const int64_t cell =
              (((t * num_points + r) * num_classes_ + label) * num_areas_ + area) * num_limits_ + m;
          tables_.precision[cell] = i < recall_.size() ? precision_[i] : 0;
          tables_.scores[cell] = i < recall_.size() ? scores_[i] : 0;
        }
      }
    }
  }

 private:
  /// Detections that count under the limit per image, by falling score.
  void select(const ClassGroup& group, const DetectedBoxes& dt, int32_t limit) {
    order_.clear();
    scores_.clear();
    for (const int32_t position : group.by_score) {
      if (group.ranks[position] >= limit) continue;
      order_.push_back(position);
      scores_.push_back(dt.scores[group.detections[position]]);
    }
  }

  /// Recall and right-monotone precision after each selected detection.
  void trace(const Verdict* verdicts, double num_ground_truths) {
    const size_t n = order_.size();
    recall_.resize(n);
    precision_.resize(n);
    double tp = 0, fp = 0;
    for (size_t i = 0; i < n; ++i) {
      const Verdict verdict = verdicts[order_[i]];
      tp += verdict == Verdict::true_positive;
      fp += verdict == Verdict::false_positive;
      recall_[i] = tp / num_ground_truths;
      precision_[i] = tp / (fp + tp + kEps);
    }
    for (size_t i = n; i-- > 1;) precision_[i - 1] = std::max(precision_[i - 1], precision_[i]);
  }

  const CocoOptions& options_;
  int64_t num_classes_, num_areas_, num_limits_;
  CocoTables& tables_;
  std::vector<int32_t> order_;
  std::vector<double> scores_, recall_, precision_;
};

}  // namespace

CocoTables evaluate_coco(int64_t num_images, int64_t num_classes, const GroundTruths& ground_truths,
                         const DetectedBoxes& detections, const CocoOptions& options) {
  check_options(options);
  check_evaluation_set(kOp, num_images, num_classes, ground_truths, detections);
  if (ground_truths.areas.size() != ground_truths.images.size())
    throw ShapeError(str(kOp, ": groundTruth.areas must have ", ground_truths.images.size(),
                         " entries (one per ground truth), got ", ground_truths.areas.size()));

  const auto num_areas = static_cast<int64_t>(options.area_ranges.size());
  const size_t cells =
      options.iou_thresholds.size() * num_classes * num_areas * options.max_detections.size();
  CocoTables tables;
  tables.recall.assign(cells, -1);
  tables.precision.assign(cells * options.recall_points.size(), -1);
  tables.scores.assign(cells * options.recall_points.size(), -1);
  tables.num_ground_truths.assign(num_classes * num_areas, 0);

  const std::vector<ClassGroup> groups =
      group_by_class(num_classes, ground_truths, detections, options.max_detections.back());
  // Areas vary slowest: a thread's share holds every class, so a dominant class does not unbalance.
  parallel_for(num_areas * num_classes, int64_t{1}, [&](int64_t task) {
    const int64_t area = task / num_classes, label = task % num_classes;
    const ClassMatches matches = match_class(groups[label], ground_truths, detections,
                                             options.iou_thresholds, options.area_ranges[area]);
    tables.num_ground_truths[label * num_areas + area] =
        static_cast<int32_t>(matches.num_ground_truths);
    if (matches.num_ground_truths == 0) return;
    Accumulator(options, num_classes, tables).add(groups[label], detections, matches, label, area);
  });
  return tables;
}

}  // namespace mixpl::eval
