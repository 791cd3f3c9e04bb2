#include "models/heads/tood_head.h"

#include <cmath>
#include <numeric>

#include "ops/concat_channels/concat_channels.h"
#include "ops/deform_sampling/deform_sampling.h"
#include "ops/global_average_pool/global_average_pool.h"
#include "ops/grid_boxes/grid_boxes.h"
#include "ops/group_norm/group_norm.h"
#include "ops/layer_weighted_conv/layer_weighted_conv.h"
#include "ops/scaled_exp/scaled_exp.h"
#include "ops/sigmoid/sigmoid.h"
#include "ops/sigmoid_geometric_mean/sigmoid_geometric_mean.h"
#include "ops/valid_boxes/valid_boxes.h"

namespace mixpl {
namespace {

constexpr int kAttentionReduction = 8;  // of the channels, times the maps: la_down_rate
constexpr int kBranchReduction = 4;     // channels of the two side branches

struct Layer {
  int64_t in, out;
  int kernel;
  float std;
  bool relu = false;
  float bias = 0;
};

ConvNorm conv(const Scope& scope, const std::string& name, const Layer& layer) {
  ConvSpec spec;
  spec.in = layer.in;
  spec.out = layer.out;
  spec.kernel = layer.kernel;
  spec.relu = layer.relu;
  spec.init = init::normal(layer.std);
  spec.bias = layer.bias;
  return ConvNorm(scope, name, "", spec);
}

}  // namespace

TaskDecomposition::TaskDecomposition(const Scope& scope, int64_t channels, int maps) {
  const int64_t in = channels * maps;
  const Scope attention = scope.child("layer_attention"), reduction = scope.child("reduction_conv");
  const int64_t squeezed = in / (maps * kAttentionReduction);
  squeeze_ = conv(attention, "0", {in, squeezed, 1, 0.001f, true});
  weigh_ = conv(attention, "2", {squeezed, maps, 1, 0.001f});
  weight_ = reduction.child("conv").weight("weight", {channels, 1, 1, in}, init::normal(0.01f));
  gamma_ = reduction.child("gn").weight("weight", {channels}, init::constant(1), true);
  beta_ = reduction.child("gn").weight("bias", {channels}, init::constant(0), true);
  groups_ = static_cast<int>(std::gcd(int64_t{GroupNormOptions{}.groups}, channels));
}

std::vector<Tensor> TaskDecomposition::operator()(const std::vector<Tensor>& features,
                                                  const std::vector<Tensor>& average) const {
  const std::vector<Tensor> attention = weigh_(squeeze_(average));
  GroupNormOptions norm;
  norm.groups = groups_;
  norm.relu = true;
  std::vector<Tensor> out;
  for (size_t l = 0; l < features.size(); ++l)
    out.push_back(group_norm(layer_weighted_conv(features[l], weight_, sigmoid(attention[l])),
                             gamma_, beta_, norm));
  return out;
}

ToodHead::ToodHead(const Scope& scope, int64_t in, int64_t classes, int levels,
                   const TowerOptions& options)
    : class_task_(scope.child("cls_decomp"), options.channels, options.stacked_convs),
      box_task_(scope.child("reg_decomp"), options.channels, options.stacked_convs) {
  const int64_t c = options.channels, all = c * options.stacked_convs;
  for (int i = 0; i < options.stacked_convs; ++i) {
    ConvSpec spec;
    spec.in = i == 0 ? in : c;
    spec.out = c;
    spec.norm = options.norm;
    spec.relu = true;
    spec.init = init::normal(0.01f);
    layers_.emplace_back(scope.child(str("inter_convs.", i)), "conv", "gn", spec);
  }
  const float prior = -std::log(99.0f);  // probability 0.01
  classes_ = conv(scope, "tood_cls", {c, classes, 3, 0.01f, false, prior});
  boxes_ = conv(scope, "tood_reg", {c, 4, 3, 0.01f});
  const int64_t squeezed = c / kBranchReduction;
  const Scope probability = scope.child("cls_prob_module"),
              offset = scope.child("reg_offset_module");
  probability_squeeze_ = conv(probability, "0", {all, squeezed, 1, 0.01f, true});
  probability_ = conv(probability, "2", {squeezed, 1, 3, 0.01f, false, prior});
  offset_squeeze_ = conv(offset, "0", {all, squeezed, 1, 0.001f, true});
  offset_ = conv(offset, "2", {squeezed, 8, 3, 0.001f});
  for (int l = 0; l < levels; ++l)
    scales_.push_back(scope.child(str("scales.", l)).weight("scale", {}, init::constant(1)));
}

std::vector<ToodOutputs> ToodHead::operator()(const std::vector<FeatureMaps>& pyramids) const {
  const size_t batches = pyramids.size();
  std::vector<Tensor> x = level_after_level(pyramids);
  std::vector<std::vector<Tensor>> maps(x.size());
  for (const ConvNorm& layer : layers_) {
    x = layer(x);
    for (size_t i = 0; i < x.size(); ++i) maps[i].push_back(x[i]);
  }
  std::vector<Tensor> features, average;
  for (const std::vector<Tensor>& layers : maps) {
    features.push_back(concat_channels(layers));
    average.push_back(global_average_pool(features.back()));
  }
  maps.clear();
  x.clear();
  const std::vector<Tensor> logits = classes_(class_task_(features, average));
  const std::vector<Tensor> probability = probability_(probability_squeeze_(features));
  const std::vector<Tensor> sides = boxes_(box_task_(features, average));
  const std::vector<Tensor> offsets = offset_(offset_squeeze_(features));
  std::vector<ToodOutputs> outs(batches);
  for (size_t i = 0; i < features.size(); ++i) {
    ToodOutputs& out = outs[i % batches];
    out.scores.push_back(sigmoid_geometric_mean(logits[i], probability[i]));
    // Anchors are centred on the corners of cells: whole numbers in units of the stride.
    const Tensor boxes = grid_boxes(scaled_exp(sides[i], scales_.at(i / batches)));
    out.boxes.push_back(valid_boxes(deform_sampling(boxes, offsets[i]), boxes));
  }
  return outs;
}

}  // namespace mixpl
