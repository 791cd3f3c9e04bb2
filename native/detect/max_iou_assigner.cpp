#include "detect/max_iou_assigner.h"

#include <algorithm>

#include "core/check.h"
#include "core/parallel.h"
#include "detect/box_math.h"
#include "ops/registry.h"

namespace mixpl {

std::vector<int32_t> assign_max_iou(const Tensor& anchors, const Tensor& boxes,
                                    const std::vector<uint8_t>& valid, const MaxIouOptions& o) {
  const int64_t a = anchors.size(0), g = boxes.size(0);
  const Box *anchor = reinterpret_cast<const Box*>(anchors.data<float>()),
            *box = reinterpret_cast<const Box*>(boxes.data<float>());
  const auto is_valid = [&](int64_t i) { return valid.empty() || valid[i]; };
  std::vector<int32_t> assigned(a, kNegative);

  // First pass: each anchor's best box, each box's best IoU. No A x G matrix is kept; the second
  // pass recomputes the few IoUs it needs, bit for bit the same.
  std::vector<std::vector<float>> thread_best(num_threads(), std::vector<float>(g, 0.0f));
  parallel_chunks(a, 2048, [&](int64_t begin, int64_t end) {
    std::vector<float>& best_of_box = thread_best[omp_get_thread_num()];
    for (int64_t i = begin; i < end; ++i) {
      if (!is_valid(i)) {
        assigned[i] = kIgnored;
        continue;
      }
      float best = -1;
      int32_t best_box = -1;
      for (int64_t j = 0; j < g; ++j) {
        const float iou = box_iou(anchor[i], box[j]);
        if (iou > best) {
          best = iou;
          best_box = static_cast<int32_t>(j);
        }
        best_of_box[j] = std::max(best_of_box[j], iou);
      }
      if (g == 0 || best < o.neg_iou)
        assigned[i] = kNegative;
      else if (best >= o.pos_iou)
        assigned[i] = best_box;
      else
        assigned[i] = kIgnored;
    }
  });
  if (!o.match_low_quality || g == 0) return assigned;
  std::vector<float> best_of_box(g, 0.0f);
  for (const auto& part : thread_best)
    for (int64_t j = 0; j < g; ++j) best_of_box[j] = std::max(best_of_box[j], part[j]);
  // Later boxes overwrite earlier ones: so each anchor looks for the last box that it ties.
  parallel_for(a, int64_t{2048}, [&](int64_t i) {
    if (!is_valid(i)) return;
    for (int64_t j = g - 1; j >= 0; --j)
      if (best_of_box[j] >= o.min_pos_iou && box_iou(anchor[i], box[j]) == best_of_box[j]) {
        // A box that no anchor touches ties with every anchor at 0 in the reference; so it does
        // here.
        assigned[i] = static_cast<int32_t>(j);
        return;
      }
  });
  return assigned;
}

namespace {
// Inputs: anchors, boxes; options as MaxIouOptions. Output: i32 [A].
const bool registered =
    register_op("assignMaxIou", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() != 2) throw ShapeError(str("assignMaxIou: needs 2 tensors, got ", in.size()));
      const Check check("assignMaxIou");
      for (const auto& [name, t] : {std::pair{"anchors", &in[0]}, std::pair{"boxes", &in[1]}}) {
        check.dtype(name, *t, DType::f32);
        check.rank(name, *t, 2, "B, 4");
        check.size(name, *t, 1, 4, "xyxy");
      }
      MaxIouOptions options;
      options.pos_iou = static_cast<float>(o.number("posIou", options.pos_iou));
      options.neg_iou = static_cast<float>(o.number("negIou", options.neg_iou));
      options.min_pos_iou = static_cast<float>(o.number("minPosIou", options.min_pos_iou));
      options.match_low_quality = o.boolean("matchLowQuality", true);
      const std::vector<int32_t> assigned = assign_max_iou(in[0], in[1], {}, options);
      return std::vector<Tensor>{Tensor::from(assigned, {static_cast<int64_t>(assigned.size())})};
    });
}  // namespace

}  // namespace mixpl
