#include "eval/voc_evaluation.h"

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "core/parallel.h"

namespace mixpl::eval {
namespace {

constexpr const char* kOp = "evaluateVoc";
// mean_ap.py guards its divisions by the epsilon of float32, bbox_overlaps by 1e-6.
constexpr double kEps = std::numeric_limits<float>::epsilon();
constexpr double kOverlapEps = 1e-6;

enum class Verdict : uint8_t { false_positive, true_positive, ignored };

double iou_xyxy(const double* a, const double* b, double extra) {
  const double w = std::max(std::min(a[2], b[2]) - std::max(a[0], b[0]) + extra, 0.0);
  const double h = std::max(std::min(a[3], b[3]) - std::max(a[1], b[1]) + extra, 0.0);
  const double area_a = (a[2] - a[0] + extra) * (a[3] - a[1] + extra);
  const double area_b = (b[2] - b[0] + extra) * (b[3] - b[1] + extra);
  return w * h / std::max(area_a + area_b - w * h, kOverlapEps);
}

struct BestOverlap {
  double iou = 0;
  int64_t slot = -1;  // position in ClassGroup::ground_truths
};

std::vector<BestOverlap> best_overlaps(const ClassGroup& group, const GroundTruths& gt,
                                       const DetectedBoxes& dt, double extra) {
  std::vector<BestOverlap> best(group.detections.size());
  for (const ImageGroup& image : group.images)
    for (int64_t d = image.detection_begin; d < image.detection_end; ++d)
      for (int64_t g = image.ground_truth_begin; g < image.ground_truth_end; ++g) {
        const double iou = iou_xyxy(&dt.boxes[4 * group.detections[d]],
                                    &gt.boxes[4 * group.ground_truths[g]], extra);
        if (best[d].slot < 0 || iou > best[d].iou) best[d] = {iou, g};
      }
  return best;
}

/// In the order of ClassGroup::detections, which is by falling score within an image.
std::vector<Verdict> judge(const ClassGroup& group, const GroundTruths& gt,
                           const std::vector<BestOverlap>& best, double threshold) {
  std::vector<Verdict> verdicts(group.detections.size());
  std::vector<uint8_t> taken(group.ground_truths.size(), 0);
  for (size_t d = 0; d < verdicts.size(); ++d) {
    const BestOverlap& b = best[d];
    if (b.slot < 0 || !(b.iou >= threshold)) {
      verdicts[d] = Verdict::false_positive;
    } else if (gt.ignore[group.ground_truths[b.slot]]) {
      verdicts[d] = Verdict::ignored;
    } else {
      verdicts[d] = taken[b.slot] ? Verdict::false_positive : Verdict::true_positive;
      taken[b.slot] = 1;
    }
  }
  return verdicts;
}

double average_precision(std::vector<double> precision, const std::vector<double>& recall,
                         VocOptions::Interpolation interpolation) {
  const size_t n = recall.size();
  for (size_t i = n; i-- > 1;) precision[i - 1] = std::max(precision[i - 1], precision[i]);
  double sum = 0;
  if (interpolation == VocOptions::Interpolation::eleven_point) {
    for (int k = 0; k <= 10; ++k) {
      // The envelope at the first position that reaches the recall is the maximum beyond it.
      const auto at = std::lower_bound(recall.begin(), recall.end(), k * 0.1) - recall.begin();
      if (at < static_cast<int64_t>(n)) sum += precision[at];
    }
    return sum / 11;
  }
  double previous = 0;
  for (size_t i = 0; i < n; ++i) {
    if (recall[i] != previous) sum += (recall[i] - previous) * precision[i];
    previous = recall[i];
  }
  return sum;
}

}  // namespace

VocTables evaluate_voc(int64_t num_images, int64_t num_classes, const GroundTruths& gt,
                       const DetectedBoxes& dt, const VocOptions& options) {
  check_evaluation_set(kOp, num_images, num_classes, gt, dt);
  if (options.iou_thresholds.empty())
    throw RangeError(str(kOp, ": iouThresholds must hold at least one entry"));
  for (const double t : options.iou_thresholds)
    if (!(t >= 0 && t <= 1))
      throw RangeError(str(kOp, ": iouThresholds must be in [0, 1], got ", t));

  const auto num_thresholds = static_cast<int64_t>(options.iou_thresholds.size());
  VocTables tables;
  tables.average_precision.assign(num_thresholds * num_classes, -1);
  tables.recall.assign(num_thresholds * num_classes, -1);
  tables.num_ground_truths.assign(num_classes, 0);
  tables.num_detections.assign(num_classes, 0);
  const auto groups = group_by_class(num_classes, gt, dt, std::numeric_limits<int32_t>::max());
  parallel_for(num_classes, int64_t{1}, [&](int64_t label) {
    const ClassGroup& group = groups[label];
    const auto num_positives = std::count_if(group.ground_truths.begin(), group.ground_truths.end(),
                                             [&](int32_t index) { return gt.ignore[index] == 0; });
    tables.num_ground_truths[label] = static_cast<int32_t>(num_positives);
    tables.num_detections[label] = static_cast<int32_t>(group.detections.size());
    if (num_positives == 0) return;
    const auto best = best_overlaps(group, gt, dt, options.legacy_coordinates ? 1 : 0);
    std::vector<double> recall(best.size()), precision(best.size());
    for (int64_t t = 0; t < num_thresholds; ++t) {
      const auto verdicts = judge(group, gt, best, options.iou_thresholds[t]);
      double tp = 0, fp = 0;
      for (size_t i = 0; i < verdicts.size(); ++i) {
        const Verdict verdict = verdicts[group.by_score[i]];
        tp += verdict == Verdict::true_positive;
        fp += verdict == Verdict::false_positive;
        recall[i] = tp / static_cast<double>(num_positives);
        precision[i] = tp / std::max(tp + fp, kEps);
      }
      const int64_t cell = t * num_classes + label;
      tables.recall[cell] = recall.empty() ? 0 : recall.back();
      tables.average_precision[cell] = average_precision(precision, recall, options.interpolation);
    }
  });
  return tables;
}

}  // namespace mixpl::eval
