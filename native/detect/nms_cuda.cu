#include "detect/nms.h"
#include "detect/score_order.h"
#include "detect/suppression_cuda.h"

namespace mixpl::cuda {
namespace {

struct BoxesView {
  const Box* boxes;
  const float* scores;
  const int32_t* labels;  // null: all of one class
  CandidatesView out;

  // Any integers are labels: a class is named by the first box that has its label.
  MIXPL_DEVICE int32_t class_of(int64_t i) const {
    int32_t first = 0;
    if (labels)
      while (labels[first] != labels[i]) ++first;
    return first;
  }
  MIXPL_DEVICE void operator()(int64_t i) const {
    out.add(0, {uint64_t{descending_key(scores[i])} << 32, static_cast<uint64_t>(i), boxes[i],
                scores[i], class_of(i)});
  }
};

struct IndicesView {
  const int32_t *origin, *ranks, *count;
  int32_t* out;  // the count, then the indices
  MIXPL_DEVICE void operator()(int64_t i) const {
    if (i == 0) out[0] = count[0];
    if (i < count[0]) out[1 + i] = origin[ranks[i]];
  }
};

}  // namespace

Tensor nms_indices(const Tensor& boxes, const Tensor& scores, const Tensor& labels, float iou_thr,
                   int64_t most) {
  const int64_t n = boxes.size(0);
  if (n == 0) return Tensor::empty({0}, DType::i32, boxes.device());
  const Candidates candidates(1, n, boxes.device());
  for_each(n, BoxesView{reinterpret_cast<const Box*>(boxes.data<float>()), scores.data<float>(),
                        labels.defined() ? labels.data<int32_t>() : nullptr, candidates.view()});
  const Ranked ranked = rank_candidates(candidates);
  const Kept kept = suppress(ranked, labels.defined() ? n : 1, iou_thr, most);
  Tensor out = Tensor::zeros({1 + kept.most()}, DType::i32, boxes.device());
  for_each(kept.most(), IndicesView{ranked.origin.data<int32_t>(), kept.ranks.data<int32_t>(),
                                    kept.counts.data<int32_t>(), out.data<int32_t>()});
  const std::vector<int32_t> values = out.to_vector<int32_t>();
  return Tensor::from(std::vector<int32_t>(values.begin() + 1, values.begin() + 1 + values[0]),
                      {values[0]}, boxes.device());
}

}  // namespace mixpl::cuda
