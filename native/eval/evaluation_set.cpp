#include "eval/evaluation_set.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "core/parallel.h"

namespace mixpl::eval {
namespace {

void check_size(const char* op, const char* name, size_t got, size_t expected, const char* why) {
  if (got != expected)
    throw ShapeError(
        str(op, ": ", name, " must have ", expected, " entries (", why, "), got ", got));
}

void check_indices(const char* op, const char* name, const std::vector<int32_t>& values,
                   int64_t size) {
  for (size_t i = 0; i < values.size(); ++i)
    if (values[i] < 0 || values[i] >= size)
      throw RangeError(
          str(op, ": ", name, "[", i, "] must be in [0, ", size, "), got ", values[i]));
}

void check_finite(const char* op, const char* name, const std::vector<double>& values) {
  for (size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values[i]))
      throw RangeError(str(op, ": ", name, "[", i, "] must be finite, got ", values[i]));
}

/// Indices of every class in input order.
std::vector<std::vector<int32_t>> indices_by_class(int64_t num_classes,
                                                   const std::vector<int32_t>& labels) {
  std::vector<int64_t> counts(num_classes, 0);
  for (const int32_t label : labels) ++counts[label];
  std::vector<std::vector<int32_t>> out(num_classes);
  for (int64_t c = 0; c < num_classes; ++c) out[c].reserve(counts[c]);
  for (size_t i = 0; i < labels.size(); ++i) out[labels[i]].push_back(static_cast<int32_t>(i));
  return out;
}

void finish_group(ClassGroup& group, const GroundTruths& gt, const DetectedBoxes& dt,
                  int64_t max_per_image) {
  std::stable_sort(group.ground_truths.begin(), group.ground_truths.end(),
                   [&](int32_t a, int32_t b) { return gt.images[a] < gt.images[b]; });
  std::stable_sort(group.detections.begin(), group.detections.end(), [&](int32_t a, int32_t b) {
    if (dt.images[a] != dt.images[b]) return dt.images[a] < dt.images[b];
    return dt.scores[a] > dt.scores[b];
  });

  const std::vector<int32_t> sorted = std::move(group.detections);
  group.detections.clear();
  size_t g = 0, d = 0;
  while (g < group.ground_truths.size() || d < sorted.size()) {
    constexpr int32_t kNone = std::numeric_limits<int32_t>::max();
    const int32_t gt_image =
        g < group.ground_truths.size() ? gt.images[group.ground_truths[g]] : kNone;
    const int32_t dt_image = d < sorted.size() ? dt.images[sorted[d]] : kNone;
    const int32_t image = std::min(gt_image, dt_image);
    ImageGroup run{};
    run.ground_truth_begin = static_cast<int64_t>(g);
    while (g < group.ground_truths.size() && gt.images[group.ground_truths[g]] == image) ++g;
    run.ground_truth_end = static_cast<int64_t>(g);
    run.detection_begin = static_cast<int64_t>(group.detections.size());
    for (int32_t rank = 0; d < sorted.size() && dt.images[sorted[d]] == image; ++d, ++rank) {
      if (rank >= max_per_image) continue;
      group.detections.push_back(sorted[d]);
      group.ranks.push_back(rank);
    }
    run.detection_end = static_cast<int64_t>(group.detections.size());
    group.images.push_back(run);
  }

  group.by_score.resize(group.detections.size());
  std::iota(group.by_score.begin(), group.by_score.end(), 0);
  std::stable_sort(group.by_score.begin(), group.by_score.end(), [&](int32_t a, int32_t b) {
    return dt.scores[group.detections[a]] > dt.scores[group.detections[b]];
  });
}

}  // namespace

void check_evaluation_set(const char* op, int64_t num_images, int64_t num_classes,
                          const GroundTruths& gt, const DetectedBoxes& dt) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  const auto count = [&](const char* name, int64_t value) {
    if (value < 0 || value > kMax)
      throw RangeError(str(op, ": ", name, " must be in [0, ", kMax, "], got ", value));
  };
  count("numImages", num_images);
  count("numClasses", num_classes);
  count("number of ground truths", static_cast<int64_t>(gt.images.size()));
  count("number of detections", static_cast<int64_t>(dt.images.size()));
  const size_t g = gt.images.size(), d = dt.images.size();
  check_size(op, "groundTruth.boxes", gt.boxes.size(), 4 * g, "four per ground truth");
  check_size(op, "groundTruth.labels", gt.labels.size(), g, "one per ground truth");
  check_size(op, "groundTruth.ignore", gt.ignore.size(), g, "one per ground truth");
  if (!gt.areas.empty())
    check_size(op, "groundTruth.areas", gt.areas.size(), g, "one per ground truth");
  if (!gt.ids.empty()) check_size(op, "groundTruth.ids", gt.ids.size(), g, "one per ground truth");
  check_size(op, "detections.boxes", dt.boxes.size(), 4 * d, "four per detection");
  check_size(op, "detections.labels", dt.labels.size(), d, "one per detection");
  check_size(op, "detections.scores", dt.scores.size(), d, "one per detection");
  check_indices(op, "groundTruth.images", gt.images, num_images);
  check_indices(op, "groundTruth.labels", gt.labels, num_classes);
  check_indices(op, "detections.images", dt.images, num_images);
  check_indices(op, "detections.labels", dt.labels, num_classes);
  check_finite(op, "groundTruth.boxes", gt.boxes);
  check_finite(op, "groundTruth.areas", gt.areas);
  check_finite(op, "detections.boxes", dt.boxes);
  check_finite(op, "detections.scores", dt.scores);
}

std::vector<ClassGroup> group_by_class(int64_t num_classes, const GroundTruths& ground_truths,
                                       const DetectedBoxes& detections, int64_t max_per_image) {
  std::vector<ClassGroup> groups(num_classes);
  auto gt_indices = indices_by_class(num_classes, ground_truths.labels);
  auto dt_indices = indices_by_class(num_classes, detections.labels);
  parallel_for(num_classes, int64_t{1}, [&](int64_t c) {
    groups[c].ground_truths = std::move(gt_indices[c]);
    groups[c].detections = std::move(dt_indices[c]);
    finish_group(groups[c], ground_truths, detections, max_per_image);
  });
  return groups;
}

}  // namespace mixpl::eval
