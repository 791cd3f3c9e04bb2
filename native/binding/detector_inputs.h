// Batches and targets as a detector's methods take them from JavaScript.
#pragma once

#include <vector>

#include "models/detector.h"

namespace mixpl::binding {

class Args;

/// images, sizes, padSizes, boxes, labels, counts: arguments 0 to 5.
LabelledBatch read_pass(const Args& args);
/// As many of those, one after the other, as there are; one at least.
std::vector<LabelledBatch> read_passes(const Args& args);
/// images, sizes: arguments 0 and 1.
ImageBatch read_batch(const Args& args);
/// One target an image from argument i on: boxes [4 sum(counts)], labels [sum(counts)], counts [N].
std::vector<Target> read_targets(const Args& args, size_t i, int64_t images);
/// A batch may come from anywhere; one that was composed for this device is not copied.
ImageBatch moved(const ImageBatch& batch, Device device);
std::vector<LabelledBatch> moved(std::vector<LabelledBatch> batches, Device device);

}  // namespace mixpl::binding
