#include "detect/atss_assigner.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/parallel.h"
#include "detect/box_iou.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

struct Level {
  const Box* anchors;
  int64_t first, count;  // in the row of all anchors
};

struct Candidate {
  float distance;  // squared, between the centres
  int64_t anchor;
};
bool nearer(const Candidate& a, const Candidate& b) {
  return a.distance != b.distance ? a.distance < b.distance : a.anchor < b.anchor;
}

// The nearest valid anchors of a level, in no order: a heap whose top is the farthest of them.
void add_nearest(const Level& level, const uint8_t* valid, Box box, int64_t most,
                 std::vector<Candidate>& found) {
  const size_t start = found.size();
  const float cx = (box.x1 + box.x2) * 0.5f, cy = (box.y1 + box.y2) * 0.5f;
  for (int64_t i = 0; i < level.count; ++i) {
    if (valid && !valid[level.first + i]) continue;
    const Box a = level.anchors[i];
    const float dx = (a.x1 + a.x2) * 0.5f - cx, dy = (a.y1 + a.y2) * 0.5f - cy;
    const Candidate candidate{dx * dx + dy * dy, level.first + i};
    if (static_cast<int64_t>(found.size() - start) == most) {
      if (!nearer(candidate, found[start])) continue;
      std::pop_heap(found.begin() + start, found.end(), nearer);
      found.pop_back();
    }
    found.push_back(candidate);
    std::push_heap(found.begin() + start, found.end(), nearer);
  }
}

bool holds_centre(Box box, Box anchor) {
  constexpr float kMargin = 0.01f;  // pixels, of the reference
  const Sides s = encode_sides((anchor.x1 + anchor.x2) * 0.5f, (anchor.y1 + anchor.y2) * 0.5f, box);
  return lesser(lesser(s.left, s.top), lesser(s.right, s.bottom)) > kMargin;
}

struct Positive {
  int64_t anchor;
  float iou;
};

// The positives of one box among its candidates. The mean of equal f32 is exact in f64, so
// candidates that all tie reach their own threshold.
std::vector<Positive> positives_of(Box box, const std::vector<Candidate>& candidates,
                                   const std::vector<Box>& anchors) {
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

}  // namespace

void AtssOptions::validate() const {
  if (top_k < 1 || top_k > 1 << 16)
    throw ConfigError(str("train.topK must be in [1, 65536], got ", top_k));
}

std::vector<int32_t> assign_atss(const std::vector<Tensor>& anchors, const Tensor& boxes,
                                 const std::vector<uint8_t>& valid, const AtssOptions& o) {
  const Box* box = as_boxes("assignAtss", "boxes", boxes);
  std::vector<Level> levels;
  std::vector<Box> all;
  for (const Tensor& level : anchors) {
    const Box* first = as_boxes("assignAtss", "anchors", level);
    levels.push_back({first, static_cast<int64_t>(all.size()), level.size(0)});
    all.insert(all.end(), first, first + level.size(0));
  }
  const int64_t a = static_cast<int64_t>(all.size()), g = boxes.size(0);
  if (!valid.empty() && static_cast<int64_t>(valid.size()) != a)
    throw ShapeError(
        str("assignAtss: valid must be [", a, "] (one an anchor), got [", valid.size(), "]"));

  std::vector<std::vector<Positive>> positives(g);
  parallel_for(g, int64_t{1}, [&](int64_t j) {
    std::vector<Candidate> candidates;
    for (const Level& level : levels)
      add_nearest(level, valid.empty() ? nullptr : valid.data(), box[j], o.top_k, candidates);
    if (!candidates.empty()) positives[j] = positives_of(box[j], candidates, all);
  });

  std::vector<int32_t> assigned(a, kNegative);
  for (size_t i = 0; i < valid.size(); ++i)
    if (!valid[i]) assigned[i] = kIgnored;
  std::vector<float> best(g ? a : 0, -1.0f);
  for (int64_t j = 0; j < g; ++j)
    for (const Positive& p : positives[j])
      if (p.iou > best[p.anchor]) {
        best[p.anchor] = p.iou;
        assigned[p.anchor] = static_cast<int32_t>(j);
      }
  return assigned;
}

BoxTargets assign_atss_targets(const std::vector<Tensor>& anchors,
                               const std::vector<std::vector<uint8_t>>& valid,
                               const std::vector<Tensor>& boxes, const std::vector<Tensor>& labels,
                               int64_t classes, const AtssOptions& options) {
  if (!valid.empty() && valid.size() != boxes.size())
    throw ShapeError(str("assignAtss: valid must have one entry per image (", boxes.size(),
                         "), got ", valid.size()));
  std::vector<std::vector<int32_t>> assigned;
  for (size_t n = 0; n < boxes.size(); ++n)
    assigned.push_back(
        assign_atss(anchors, boxes[n], valid.empty() ? std::vector<uint8_t>{} : valid[n], options));
  return box_targets(anchors, boxes, labels, assigned, classes);
}

namespace {
// Inputs: boxes, valid u8 [A] or [0], then the anchors of each level; { topK }. Output: i32 [A].
const bool registered =
    register_op("assignAtss", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() < 2)
        throw ShapeError(str("assignAtss: needs boxes, valid and the anchors of each level, got ",
                             in.size(), " tensors"));
      AtssOptions options;
      options.top_k = o.integer("topK", options.top_k);
      options.validate();
      Check("assignAtss").dtype("valid", in[1], DType::u8);
      const std::vector<int32_t> assigned =
          assign_atss({in.begin() + 2, in.end()}, in[0], in[1].to_vector<uint8_t>(), options);
      return std::vector<Tensor>{Tensor::from(assigned, {static_cast<int64_t>(assigned.size())})};
    });
}  // namespace

}  // namespace mixpl
