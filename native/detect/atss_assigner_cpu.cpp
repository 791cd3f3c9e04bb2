#include <algorithm>
#include <cmath>
#include <vector>

#include "core/parallel.h"
#include "detect/atss_assigner.h"

namespace mixpl::cpu {
namespace {

struct Candidate {
  float distance;
  int64_t anchor;
};
bool nearer(const Candidate& a, const Candidate& b) {
  return a.distance != b.distance ? a.distance < b.distance : a.anchor < b.anchor;
}

// The nearest valid anchors of a level, in no order: a heap whose top is the farthest of them.
void add_nearest(const AtssView& view, int64_t image, int level, const Box& box,
                 std::vector<Candidate>& found) {
  const size_t start = found.size();
  for (int64_t i = view.pyramid.first[level]; i < view.pyramid.first[level + 1]; ++i) {
    if (!view.is_valid(image, i)) continue;
    const Candidate candidate{view.distance(i, box), i};
    if (static_cast<int64_t>(found.size() - start) == view.top_k) {
      if (!nearer(candidate, found[start])) continue;
      std::pop_heap(found.begin() + start, found.end(), nearer);
      found.pop_back();
    }
    found.push_back(candidate);
    std::push_heap(found.begin() + start, found.end(), nearer);
  }
}

struct Positive {
  int64_t anchor;
  float iou;
};

// The positives of one box among its candidates. The mean of equal f32 is exact in f64, so
// candidates that all tie reach their own threshold.
std::vector<Positive> positives_of(Box box, const std::vector<Candidate>& candidates,
                                   const Box* anchors) {
  const size_t n = candidates.size();
  std::vector<float> ious(n);
  double mean = 0, squares = 0;
  for (size_t i = 0; i < n; ++i) mean += ious[i] = box_iou(anchors[candidates[i].anchor], box);
  mean /= static_cast<double>(n);
  for (float iou : ious) squares += (iou - mean) * (iou - mean);
  const double threshold = mean + (n > 1 ? std::sqrt(squares / static_cast<double>(n - 1)) : 0.0);
  std::vector<Positive> positives;
  for (size_t i = 0; i < n; ++i)
    if (ious[i] >= threshold && holds_centre(box, anchors[candidates[i].anchor]))
      positives.push_back({candidates[i].anchor, ious[i]});
  return positives;
}

// One image, from the positives of its boxes.
void resolve(const AtssView& view, int64_t image, const std::vector<Positive>* positives) {
  const int64_t count = view.pyramid.count();
  int32_t* assigned = view.assigned + image * count;
  for (int64_t i = 0; i < count; ++i) assigned[i] = view.is_valid(image, i) ? kNegative : kIgnored;
  const int32_t boxes = view.truth.count(image);
  std::vector<float> best(boxes ? count : 0, -1.0f);
  for (int32_t j = 0; j < boxes; ++j)
    for (const Positive& p : positives[j])
      if (p.iou > best[p.anchor]) {
        best[p.anchor] = p.iou;
        assigned[p.anchor] = j;
      }
}

}  // namespace

void assign_atss(const AtssView& view, int64_t boxes) {
  std::vector<std::vector<Positive>> positives(boxes);
  parallel_for(boxes, int64_t{1}, [&](int64_t j) {
    const int64_t image = view.truth.image_of(static_cast<int32_t>(j), view.images);
    std::vector<Candidate> candidates;
    for (int level = 0; level < view.pyramid.levels; ++level)
      add_nearest(view, image, level, view.truth.boxes[j], candidates);
    if (!candidates.empty())
      positives[j] = positives_of(view.truth.boxes[j], candidates, view.anchors);
  });
  parallel_for(view.images, int64_t{1}, [&](int64_t image) {
    resolve(view, image, positives.data() + view.truth.begin(image));
  });
}

}  // namespace mixpl::cpu
