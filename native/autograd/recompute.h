// Trading time for memory: a part of a network whose activations are not kept but computed again.
#pragma once

#include <functional>
#include <vector>

#include "core/tensor.h"

namespace mixpl {

/// part(inputs), without what its ops would keep for the backward pass: that runs `part` once more,
/// under the context of this call, and goes back through it. Outputs and gradients have the same
/// bits as those of part(inputs).
///
/// `part` must give the same outputs again: what it refers to lives, and the parameters it reads
/// stay as they are, until the backward pass. Live BatchNorm moves its statistics the first time
/// only.
using Part = std::function<std::vector<Tensor>(const std::vector<Tensor>& inputs)>;
std::vector<Tensor> recompute(const std::vector<Tensor>& inputs, Part part);

}  // namespace mixpl
