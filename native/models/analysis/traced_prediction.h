// What a detector computes from pictures to detections, as steps.
#pragma once

#include "core/trace.h"
#include "models/detector.h"

namespace mixpl {

struct TracedPrediction {
  Trace trace;
  int input = 0;  // number of the pixels
};

/// The steps of detector.predict() of one picture of this size, under the context as it is.
/// @param  height, width of the network's input; size: of the picture in it, unpadded
/// @throws ConfigError when a part of the detector cannot be written down
TracedPrediction traced_prediction(Detector& detector, int64_t height, int64_t width,
                                   InputSize size);

}  // namespace mixpl
