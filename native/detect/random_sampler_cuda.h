#pragma once

#include "detect/random_sampler.h"
#include "detect/top_items_cuda.h"

namespace mixpl::cuda {

/// What sample_boxes draws from every image; each list in no order.
struct Drawn {
  Selection positives, negatives;  // index_of(item) is a box
};
/// @param assigned i32 [N, A]; image n draws from the stream random.stream + n
Drawn sample_boxes(const Tensor& assigned, const SamplerOptions& options, const Philox& random);

}  // namespace mixpl::cuda
