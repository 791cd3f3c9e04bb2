#include "detect/proposals.h"

namespace mixpl {

Regions propose_regions(const std::vector<ProposalLevel>& levels, const Tensor& sizes,
                        const ProposalOptions& o) {
  return MIXPL_DISPATCH(sizes.device(), propose_regions, levels, sizes, o);
}

}  // namespace mixpl
