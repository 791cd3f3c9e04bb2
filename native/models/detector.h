// What every detector offers, and the table that builds one from its configuration.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/tensor.h"
#include "detect/dense_post_process.h"
#include "nn/parameters.h"

namespace mixpl {

struct InputSize {
  float height = 0, width = 0;  // pixels of the network input
};

struct ImageBatch {
  Tensor pixels;                     // [N, H, W, 3] f32|bf16, normalised, zero padded
  std::vector<InputSize> sizes;      // unpadded
  std::vector<InputSize> pad_sizes;  // anchors beyond it are ignored in training
};

struct Target {
  Tensor boxes;   // f32 [G, 4] xyxy, pixels of the network input
  Tensor labels;  // i32 [G], 0 … K-1
};

/// Named f32 scalars, already normalised and weighted; their sum is what is minimised.
using Losses = std::vector<std::pair<std::string, Tensor>>;

class Detector {
 public:
  virtual ~Detector() = default;
  /// @throws ShapeError, RangeError (a label beyond the classes)
  virtual Losses loss(const ImageBatch& images, const std::vector<Target>& targets) = 0;
  /// Boxes in network-input pixels, clipped to the unpadded size.
  virtual std::vector<Detections> predict(const ImageBatch& images) = 0;

  ParameterStore& parameters() { return parameters_; }
  int64_t num_classes() const { return num_classes_; }

 protected:
  ParameterStore parameters_;
  int64_t num_classes_ = 0;
};

/// Builds the detector that `json` describes: { type, numClasses, backbone, neck, head, ... }.
/// @param seed of the initial weights. @throws ConfigError naming the option
std::unique_ptr<Detector> create_detector(const std::string& json, uint64_t seed);

}  // namespace mixpl
