// The head that most one-stage detectors share: two conv towers over all pyramid levels, one output
// for classes, one for boxes and, in some, one for the quality of a box.
#pragma once

#include <string>
#include <vector>

#include "models/feature_maps.h"
#include "models/heads/conv_tower.h"

namespace mixpl {

struct DenseHeadSpec {
  std::string classes_name, boxes_name;  // of the output convolutions, e.g. "retina_cls"
  std::string quality_name;              // empty: no such output
  int64_t class_channels = 0;            // A K
  int64_t box_channels = 0;              // 4 A
  int64_t quality_channels = 1;          // A
  bool quality_beside_classes = false;   // on the class tower instead of the box tower
  int scales = 0;  // > 0: the box output of level l is multiplied by the learned scales.<l>.scale
};

/// Per level, [N, H, W, ...] each; quality is empty where the head has none.
struct DenseOutputs {
  std::vector<Tensor> logits, boxes, quality;
};

/// Parameters: cls_convs, reg_convs (see ConvTower), the outputs' convolutions, scales.
class DenseHead {
 public:
  DenseHead(const Scope& scope, int64_t in, const DenseHeadSpec& spec, const TowerOptions& towers);
  /// All pyramids at once. @return what it makes of each
  std::vector<DenseOutputs> operator()(const std::vector<FeatureMaps>& pyramids) const;

 private:
  ConvTower class_tower_, box_tower_;
  ConvNorm classes_, boxes_, quality_;
  std::vector<Tensor> scales_;
  bool has_quality_, quality_beside_classes_;
};

}  // namespace mixpl
