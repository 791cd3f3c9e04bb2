#include "detect/sampled_targets.h"

#include <algorithm>

#include "core/check.h"
#include "core/parallel.h"
#include "detect/box_iou.h"

namespace mixpl {

AnchorTargets sample_anchor_targets(const std::vector<Tensor>& anchors,
                                    const std::vector<Tensor>& boxes,
                                    const std::vector<std::vector<uint8_t>>& valid,
                                    const DeltaCoder& coder, const MaxIouOptions& assign,
                                    const SamplerOptions& sampler, const Philox& random) {
  const int64_t images = static_cast<int64_t>(boxes.size());
  AnchorTargets out;
  std::vector<int64_t> first{0};
  for (const Tensor& level : anchors) {
    const int64_t count = level.size(0);
    out.objectness.push_back(Tensor::zeros({images, count}, DType::f32));
    out.sampled.push_back(Tensor::zeros({images, count}, DType::f32));
    out.deltas.push_back(Tensor::zeros({images, count, 4}, DType::f32));
    out.positive.push_back(Tensor::zeros({images, count}, DType::f32));
    first.push_back(first.back() + count);
  }
  Tensor all = Tensor::empty({first.back(), 4}, DType::f32);
  for (size_t l = 0; l < anchors.size(); ++l)
    std::copy_n(anchors[l].data<float>(), anchors[l].numel(), all.data<float>() + 4 * first[l]);
  const Box* anchor = as_boxes("anchorTargets", "anchors", all);

  static const std::vector<uint8_t> all_valid;
  for (int64_t n = 0; n < images; ++n) {
    const Box* box = as_boxes("anchorTargets", "boxes", boxes[n]);
    const std::vector<int32_t> assigned =
        assign_max_iou(all, boxes[n], valid.empty() ? all_valid : valid[n], assign);
    const Sampled drawn =
        sample_boxes(assigned, sampler, {random.seed, random.stream + static_cast<uint64_t>(n)});
    const auto level_of = [&](int32_t i) {
      return static_cast<size_t>(std::upper_bound(first.begin(), first.end(), i) - first.begin()) -
             1;
    };
    for (int32_t i : drawn.positives) {
      const size_t l = level_of(i);
      const int64_t at = n * anchors[l].size(0) + i - first[l];
      out.objectness[l].data<float>()[at] = 1;
      out.sampled[l].data<float>()[at] = 1;
      out.positive[l].data<float>()[at] = 1;
      reinterpret_cast<Delta*>(out.deltas[l].data<float>())[at] =
          coder.encode(anchor[i], box[assigned[i]]);
    }
    for (int32_t i : drawn.negatives) {
      const size_t l = level_of(i);
      out.sampled[l].data<float>()[n * anchors[l].size(0) + i - first[l]] = 1;
    }
    out.num_sampled += static_cast<int64_t>(drawn.positives.size() + drawn.negatives.size());
  }
  out.num_sampled = std::max<int64_t>(out.num_sampled, 1);
  return out;
}

RegionTargets sample_regions(const std::vector<std::vector<Box>>& proposals,
                             const std::vector<Tensor>& boxes, const std::vector<Tensor>& labels,
                             int64_t classes, const MaxIouOptions& assign,
                             const SamplerOptions& sampler, const Philox& random) {
  RegionTargets out;
  for (size_t n = 0; n < proposals.size(); ++n) {
    const Box* truth = as_boxes("regionTargets", "boxes", boxes[n]);
    const int64_t num_truth = boxes[n].size(0);
    const int32_t* label = labels[n].data<int32_t>();
    std::vector<Box> all(truth, truth + num_truth);
    all.insert(all.end(), proposals[n].begin(), proposals[n].end());
    Tensor candidates = Tensor::empty({static_cast<int64_t>(all.size()), 4}, DType::f32);
    std::copy(all.begin(), all.end(), reinterpret_cast<Box*>(candidates.data<float>()));
    std::vector<int32_t> assigned = assign_max_iou(candidates, boxes[n], {}, assign);
    // The ground truth is its own match, whatever stands beside it.
    for (int64_t g = 0; g < num_truth; ++g) assigned[g] = static_cast<int32_t>(g);
    const Sampled drawn =
        sample_boxes(assigned, sampler, {random.seed, random.stream + static_cast<uint64_t>(n)});
    const auto add = [&](int32_t i, bool positive) {
      out.boxes.push_back(all[i]);
      out.image.push_back(static_cast<int32_t>(n));
      out.labels.push_back(positive ? label[assigned[i]] : static_cast<int32_t>(classes));
      out.truth.push_back(positive ? assigned[i] : -1);
      out.is_truth.push_back(i < num_truth);
    };
    for (int32_t i : drawn.positives) add(i, true);
    for (int32_t i : drawn.negatives) add(i, false);
  }
  return out;
}

}  // namespace mixpl
