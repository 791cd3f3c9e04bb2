// The task-aligned head (TOOD, Feng et al. 2021) in mmdetection's anchor-free form.
#pragma once

#include <vector>

#include "models/feature_maps.h"
#include "models/heads/conv_tower.h"

namespace mixpl {

/// Separates one task's features from the stacked ones: every map gets a weight from the average of
/// all of them, then a 1x1 convolution, GroupNorm and ReLU.
/// Parameters: layer_attention.{0, 2}, reduction_conv.conv.weight, reduction_conv.gn.
class TaskDecomposition {
 public:
  TaskDecomposition() = default;
  TaskDecomposition(const Scope& scope, int64_t channels, int maps);

  /// Per level: features [N, H, W, maps C], average [N, 1, 1, maps C] -> [N, H, W, C]
  std::vector<Tensor> operator()(const std::vector<Tensor>& features,
                                 const std::vector<Tensor>& average) const;

 private:
  ConvNorm squeeze_, weigh_;
  Tensor weight_, gamma_, beta_;
  int groups_ = 1;
};

/// Per level: scores f32 [N, H, W, K], probabilities; boxes f32 [N H W, 4] xyxy in units of the
/// level's stride.
struct ToodOutputs {
  std::vector<Tensor> scores, boxes;
};

/// One tower whose layers all go on to four branches: class logits and their common probability,
/// distances to the sides, and where the neighbourhood's boxes are read from.
/// Parameters: inter_convs.<i>, cls_decomp, reg_decomp, tood_cls, tood_reg, cls_prob_module.{0, 2},
/// reg_offset_module.{0, 2}, scales.<l>.scale.
class ToodHead {
 public:
  /// @param options of inter_convs; norm is gn, channels >= 8, stacked_convs >= 1
  /// @param levels  pyramid levels, one learned scale each
  ToodHead(const Scope& scope, int64_t in, int64_t classes, int levels,
           const TowerOptions& options);
  /// All pyramids at once. @return what it makes of each
  std::vector<ToodOutputs> operator()(const std::vector<FeatureMaps>& pyramids) const;

 private:
  std::vector<ConvNorm> layers_;
  TaskDecomposition class_task_, box_task_;
  ConvNorm classes_, boxes_;
  ConvNorm probability_squeeze_, probability_, offset_squeeze_, offset_;
  std::vector<Tensor> scales_;
};

}  // namespace mixpl
