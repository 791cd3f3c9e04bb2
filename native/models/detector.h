// What every detector offers, and the table that builds one from its configuration.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/context.h"
#include "core/options.h"
#include "core/tensor.h"
#include "detect/anchors.h"
#include "detect/dense_post_process.h"
#include "detect/truth.h"
#include "models/feature_maps.h"
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

/// Whose choices a detector follows where the two references differ: anchors, coders, assignment,
/// normalisers, scores and the names of the losses.
enum class Numerics : uint8_t { mmdetection, torchvision };
/// { numerics }, mmdetection when absent. @throws ConfigError
Numerics read_numerics(const Options& options);
/// For detectors that torchvision does not have. @throws ConfigError unless it is mmdetection
void read_mmdetection_numerics(const Options& options);
/// { numClasses }, in [1, 65536]. @throws ConfigError
int64_t read_num_classes(const Options& options);
/// A whole number under `name`, at least 1. @param section before its name in messages, e.g.
/// "test."
/// @throws ConfigError
int64_t read_count(const Options& options, const char* section, const char* name, int64_t fallback);
/// { points: { strides } }, one per level. @throws ConfigError
std::vector<double> read_point_strides(const Options& options, int levels);
/// { anchors: { strides, octaveBaseScale } }: one square anchor a cell, its side octaveBaseScale
/// (8) strides. @throws ConfigError
AnchorOptions read_square_anchors(const Options& options, int levels);

/// Images and what is to be found in them.
struct LabelledBatch {
  ImageBatch images;
  std::vector<Target> targets;
};

class Detector {
 public:
  virtual ~Detector() = default;
  /// Those of each batch, as passes one after the other would have them but for rounding: backbone,
  /// neck and the convolutions of dense heads see all batches at once, what follows one by one.
  /// Batch i draws the random numbers of pass i of the context.
  /// @throws ShapeError, RangeError (a label beyond the classes)
  std::vector<Losses> losses(const std::vector<LabelledBatch>& batches);
  Losses loss(const ImageBatch& images, const std::vector<Target>& targets) {
    return losses({{images, targets}})[0];
  }
  /// Boxes in network-input pixels, clipped to the unpadded size. A GPU is not waited for.
  virtual PendingDetections predict(const ImageBatch& images) = 0;

  ParameterStore& parameters() { return parameters_; }
  int64_t num_classes() const { return num_classes_; }

 protected:
  virtual std::vector<FeatureMaps> pyramids(const std::vector<Tensor>& batches) const = 0;
  /// @param pyramids one for each batch
  /// @param batches  targets one per image, labels below num_classes_, boxes finite and with an
  /// area
  virtual std::vector<Losses> head_losses(std::vector<FeatureMaps> pyramids,
                                          const std::vector<LabelledBatch>& batches) = 0;
  /// losses_of(outputs of a batch, images, targets) one after the other, each in its own pass.
  template <class Outputs, class LossesOf>
  static std::vector<Losses> pass_by_pass(std::vector<Outputs> outputs,
                                          const std::vector<LabelledBatch>& batches,
                                          LossesOf losses_of) {
    std::vector<Losses> losses;
    for (size_t i = 0; i < batches.size(); ++i) {
      const ContextScope scope(Context::current().of_pass(i));
      const Outputs out = std::exchange(outputs[i], {});
      losses.push_back(losses_of(out, batches[i].images, batches[i].targets));
    }
    return losses;
  }
  FeatureMaps pyramid_of(const ImageBatch& images) const { return pyramids({images.pixels})[0]; }

  ParameterStore parameters_;
  int64_t num_classes_ = 0;

 private:
  void check_targets(const LabelledBatch& batch) const;
};

/// torchvision's distance between cells: the padded image over the feature map, rounded down.
CellStride torchvision_stride(const Tensor& pixels, int64_t height, int64_t width);
/// Those inside the images as they were padded.
Tensor valid_anchors(const AnchorOptions& options, const std::vector<Tensor>& maps,
                     const ImageBatch& images);
/// On the device of the images.
Truth truth_of(const ImageBatch& images, const std::vector<Target>& targets);
/// Boxes and labels per image.
std::vector<Tensor> boxes_of(const std::vector<Target>& targets);
std::vector<Tensor> labels_of(const std::vector<Target>& targets);
/// Unpadded height and width of every image on the device of the pixels, f32 [N, 2]: see ImageSize.
Tensor sizes_of(const ImageBatch& images);

/// Builds the detector that `json` describes: { type, numClasses, backbone, neck, head, ... }.
/// @param seed of the initial weights. @throws ConfigError naming the option
std::unique_ptr<Detector> create_detector(const std::string& json, uint64_t seed);

}  // namespace mixpl
