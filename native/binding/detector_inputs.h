// Batches and targets as a detector's methods take them from JavaScript.
#pragma once

#include <vector>

#include "models/detector.h"

namespace mixpl::binding {

class Args;

struct Pass {
  ImageBatch images;
  std::vector<Target> targets;
};

/// images, sizes, padSizes, boxes, labels, counts: arguments 0 to 5.
Pass read_pass(const Args& args);
/// images, sizes: arguments 0 and 1.
ImageBatch read_batch(const Args& args);
/// One target an image from argument i on: boxes [4 sum(counts)], labels [sum(counts)], counts [N].
std::vector<Target> read_targets(const Args& args, size_t i, int64_t images);
/// A batch may come from anywhere; one that was composed for this device is not copied.
ImageBatch moved(const ImageBatch& batch, Device device);

}  // namespace mixpl::binding
