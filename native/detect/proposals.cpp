#include "detect/proposals.h"

namespace mixpl {

Regions propose_regions(const std::vector<ProposalLevel>& levels,
                        const Tensor& sizes, const ProposalOptions& o) {
  const Device device = levels.empty() ? Device() : levels[0].logits.device();
  return MIXPL_DISPATCH(device, propose_regions, levels, sizes, o);
}

}  // namespace mixpl
