#include "detect/task_aligned_assigner.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/parallel.h"
#include "detect/box_iou.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

struct Candidate {
  int64_t anchor;
  float fit, iou;
};

bool better(const Candidate& a, const Candidate& b) {
  return a.fit != b.fit ? a.fit > b.fit : a.anchor < b.anchor;
}

float power(float x, float n) { return n == 1.0f ? x : static_cast<float>(std::pow(x, n)); }

bool holds_centre(const Box& box, const Box& anchor) {
  const float x = (anchor.x1 + anchor.x2) / 2, y = (anchor.y1 + anchor.y2) / 2;
  const Sides s = encode_sides(x, y, box);
  return lesser(lesser(s.left, s.right), lesser(s.top, s.bottom)) > 0.01f;
}

}  // namespace

void TaskAlignedOptions::validate() const {
  if (top < 1) throw ConfigError(str("train.alignTop must be >= 1, got ", top));
  for (const float exponent : {alpha, beta})
    if (!(exponent >= 0) || !std::isfinite(exponent))
      throw ConfigError(
          str("train.alignAlpha and train.alignBeta must be numbers >= 0, got ", exponent));
}

TaskAlignment assign_task_aligned(const Tensor& scores, const Tensor& predicted,
                                  const Tensor& anchors, const Tensor& boxes, const Tensor& labels,
                                  const std::vector<uint8_t>& valid, const TaskAlignedOptions& o) {
  const Check check("assignTaskAligned");
  const Box *anchor = as_boxes("assignTaskAligned", "anchors", anchors),
            *got = as_boxes("assignTaskAligned", "predicted", predicted),
            *want = as_boxes("assignTaskAligned", "boxes", boxes);
  const int64_t count = anchors.size(0), num_boxes = boxes.size(0);
  check.shape("predicted", predicted, anchors.shape(), "one an anchor");
  check.dtype("scores", scores, DType::f32);
  check.rank("scores", scores, 2, "A, K");
  check.size("scores", scores, 0, count, "one row an anchor");
  check.dtype("labels", labels, DType::i32);
  check.shape("labels", labels, {num_boxes}, "one a box");
  if (!valid.empty() && static_cast<int64_t>(valid.size()) != count)
    throw ShapeError(str("assignTaskAligned: valid must be [", count, "] (one an anchor), got [",
                         valid.size(), "]"));

  TaskAlignment out;
  out.assigned.assign(count, kNegative);
  out.quality.assign(count, 0.0f);
  const auto is_valid = [&](int64_t i) { return valid.empty() || valid[i]; };
  for (int64_t i = 0; i < count; ++i)
    if (!is_valid(i)) out.assigned[i] = kIgnored;

  // Each box's candidates on its own, then who gets the contested ones, boxes in order.
  const int64_t classes = scores.size(1);
  const float* score = scores.data<float>();
  const int32_t* label = labels.data<int32_t>();
  std::vector<std::vector<Candidate>> candidates(num_boxes);
  parallel_for(num_boxes, int64_t{1}, [&](int64_t g) {
    std::vector<Candidate>& own = candidates[g];
    for (int64_t i = 0; i < count; ++i) {
      if (!is_valid(i)) continue;
      const float iou = box_iou(got[i], want[g]);
      if (!(iou > 0)) continue;
      const float fit = power(score[i * classes + label[g]], o.alpha) * power(iou, o.beta);
      if (fit > 0) own.push_back({i, fit, iou});
    }
    if (static_cast<int64_t>(own.size()) > o.top) {
      std::nth_element(own.begin(), own.begin() + o.top, own.end(), better);
      own.resize(o.top);
    }
    std::erase_if(own,
                  [&](const Candidate& c) { return !holds_centre(want[g], anchor[c.anchor]); });
  });

  std::vector<float> best_iou(count, 0.0f);
  for (int64_t g = 0; g < num_boxes; ++g)
    for (const Candidate& c : candidates[g])
      if (c.iou > best_iou[c.anchor]) {
        best_iou[c.anchor] = c.iou;
        out.assigned[c.anchor] = static_cast<int32_t>(g);
      }
  for (int64_t g = 0; g < num_boxes; ++g) {
    float most_fit = 0, most_iou = 0;
    for (const Candidate& c : candidates[g])
      if (out.assigned[c.anchor] == g) {
        most_fit = greater(most_fit, c.fit);
        most_iou = greater(most_iou, c.iou);
      }
    for (const Candidate& c : candidates[g])
      if (out.assigned[c.anchor] == g)
        out.quality[c.anchor] = c.fit / (most_fit + 1e-7f) * most_iou;
  }
  return out;
}

namespace {
// Inputs: scores, predicted, anchors, boxes, labels, then valid u8 [A] if given; { top, alpha,
// beta }. Outputs: assigned i32 [A], quality f32 [A].
const bool registered =
    register_op("assignTaskAligned", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() != 5 && in.size() != 6)
        throw ShapeError(str("assignTaskAligned: needs 5 or 6 tensors, got ", in.size()));
      TaskAlignedOptions options;
      options.top = o.integer("top", options.top);
      options.alpha = static_cast<float>(o.number("alpha", options.alpha));
      options.beta = static_cast<float>(o.number("beta", options.beta));
      options.validate();
      const Check check("assignTaskAligned");
      std::vector<uint8_t> valid;
      if (in.size() == 6) {
        check.dtype("valid", in[5], DType::u8);
        valid = in[5].to_vector<uint8_t>();
      }
      check.dtype("labels", in[4], DType::i32);
      check.rank("scores", in[0], 2, "A, K");
      for (int32_t label : in[4].to_vector<int32_t>())
        if (label < 0 || label >= in[0].size(1))
          throw RangeError(str("assignTaskAligned: labels must be in [0, ", in[0].size(1) - 1,
                               "], got ", label));
      const TaskAlignment a =
          assign_task_aligned(in[0], in[1], in[2], in[3], in[4], valid, options);
      const int64_t n = static_cast<int64_t>(a.assigned.size());
      return std::vector<Tensor>{Tensor::from(a.assigned, {n}), Tensor::from(a.quality, {n})};
    });
}  // namespace

}  // namespace mixpl
