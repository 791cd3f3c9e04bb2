// ResNet (He et al. 2016), C2 … C5. Names and freezing follow mmdetection.
#pragma once

#include <vector>

#include "core/options.h"
#include "models/feature_maps.h"
#include "nn/conv.h"

namespace mixpl {

struct ResNetOptions {
  int depth = 50;            // 18, 34, 50 or 101
  bool caffe_style = false;  // bottleneck stride on the first 1x1 instead of the 3x3
  int frozen_stages = 1;     // -1 none, 0 the stem, n stem and stages 1 … n
  NormKind norm = NormKind::frozen_bn;
  int64_t base_width = 64;  // channels of the stem; 64 is the published network
  float norm_eps = 1e-5f;   // torchvision's COCO_V1 files of RetinaNet and Faster R-CNN: 0
  // Live BatchNorm of a frozen stage keeps its statistics (mmdetection), or goes on with the
  // batch's (torchvision); follows from the numerics.
  bool freeze_statistics = true;
  // In training, keeps the outputs of stem and stages alone: the backward pass computes the rest
  // again. A third more work in the backbone.
  bool recompute = false;

  static ResNetOptions read(const Options& options);
};

class ResNet {
 public:
  ResNet(const Scope& scope, const ResNetOptions& options);

  /// Batches [N, H, W, 3] -> C2 … C5 of each, strides 4, 8, 16, 32; a GPU convolves all in one
  /// launch.
  std::vector<FeatureMaps> operator()(const std::vector<Tensor>& batches) const;
  /// Channels of C2 … C5.
  const std::vector<int64_t>& channels() const { return channels_; }

 private:
  struct Block {
    ConvNorm conv1, conv2, conv3, downsample;
    bool bottleneck = false, has_downsample = false;
    std::vector<Tensor> operator()(const std::vector<Tensor>& xs) const;
  };
  ConvNorm stem_;
  std::vector<std::vector<Block>> stages_;
  std::vector<int64_t> channels_;
  bool recompute_;
};

}  // namespace mixpl
