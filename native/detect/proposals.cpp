#include "detect/proposals.h"

namespace mixpl {

Regions propose_regions(const std::vector<ProposalLevel>& levels, const Tensor& sizes,
                        const ProposalOptions& o) {
  const Regions regions = MIXPL_DISPATCH(sizes.device(), propose_regions, levels, sizes, o);
  if (is_traced()) {
    std::vector<Tensor> inputs;
    Trace::Numbers numbers{{"nmsPre", static_cast<double>(o.nms_pre)},
                           {"maxPerImage", static_cast<double>(o.max_per_image)},
                           {"scoreThr", o.score_thr},
                           {"nmsIou", o.nms_iou},
                           {"minSize", o.min_size},
                           {"mayEqualSize", o.may_equal_size}};
    for (size_t l = 0; l < levels.size(); ++l) {
      inputs.insert(inputs.end(), {levels[l].logits, Tensor()});
      levels[l].boxes.note(l, inputs, numbers);
    }
    note("proposeRegions", inputs, {regions.boxes}, std::move(numbers));
  }
  return regions;
}

}  // namespace mixpl
