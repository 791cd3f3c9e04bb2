#include "models/heads/query_head.h"

#include <algorithm>
#include <cmath>

#include "models/probe.h"
#include "nn/mlp.h"
#include "ops/boxes_from_centers/boxes_from_centers.h"
#include "ops/iou_loss/iou_loss.h"
#include "ops/l1_loss/l1_loss.h"
#include "ops/reshape/reshape.h"
#include "ops/scaled_sum/scaled_sum.h"

namespace mixpl {

QueryHead::QueryHead(const Scope& scope, const QueryHeadSpec& spec) : shared_(spec.shared) {
  const int count = spec.shared ? 1 : spec.layers;
  const float prior = -std::log(99.0f);  // a probability of 0.01
  for (int i = 0; i < count; ++i) {
    classes_.emplace_back(scope, str("cls_branches.", i), spec.channels, spec.classes,
                          init::uniform_fan_in(), LinearOptions{}, init::constant(prior));
    const Scope at = scope.child(str("reg_branches.", i));
    Boxes boxes;
    for (int k = 0; k < 2; ++k)
      boxes.hidden[k] = Linear(at, str(2 * k), spec.channels, spec.channels, init::uniform_fan_in(),
                               {true}, uniform_bias(spec.channels));
    const float size_bias = i == 0 ? spec.size_bias : 0;
    boxes.out =
        Linear(at, "4", spec.channels, 4, init::constant(0), {}, [=](Tensor& bias, const Philox&) {
          float* b = bias.data<float>();
          b[0] = b[1] = 0;
          b[2] = b[3] = size_bias;
        });
    boxes_.push_back(std::move(boxes));
  }
}

Tensor QueryHead::deltas(int layer, const Tensor& x) const {
  const Boxes& boxes = boxes_[at(layer)];
  return boxes.out(boxes.hidden[1](boxes.hidden[0](x)));
}

QueryLossOptions QueryLossOptions::read(const Options& options, const QueryLossOptions& defaults) {
  QueryLossOptions out = defaults;
  const auto read_weight = [](const Options& o, const char* section, const char* name,
                              float& into) {
    into = static_cast<float>(o.number(name, into));
    if (!(into >= 0) || !std::isfinite(into))
      throw ConfigError(str("train.", section, ".", name, " must be a number >= 0, got ", into));
  };
  out.focal.alpha = static_cast<float>(options.number("focalAlpha", out.focal.alpha));
  out.focal.gamma = static_cast<float>(options.number("focalGamma", out.focal.gamma));
  if (!(out.focal.alpha >= 0 && out.focal.alpha <= 1))
    throw ConfigError(str("train.focalAlpha must be in [0, 1], got ", out.focal.alpha));
  if (!(out.focal.gamma >= 0) || !std::isfinite(out.focal.gamma))
    throw ConfigError(str("train.focalGamma must be a number >= 0, got ", out.focal.gamma));
  const Options costs = options.object("matchCosts");
  read_weight(costs, "matchCosts", "classification", out.matching.classification);
  read_weight(costs, "matchCosts", "boxes", out.matching.boxes);
  read_weight(costs, "matchCosts", "iou", out.matching.iou);
  costs.finish();
  const Options weights = options.object("lossWeights");
  read_weight(weights, "lossWeights", "classification", out.classification);
  read_weight(weights, "lossWeights", "boxes", out.boxes);
  read_weight(weights, "lossWeights", "iou", out.iou);
  weights.finish();
  options.finish();
  return out;
}

void add_query_losses(Losses& losses, const std::string& prefix, const QueryOutputs& out,
                      const QueryTargets& targets, const Tensor& sizes, int64_t classes,
                      const QueryLossOptions& options) {
  const Divisor factor(static_cast<float>(std::max<int64_t>(targets.positives, 1)));
  const int64_t count = targets.weights.numel();
  const Tensor weights = targets.weights.alias({count});
  const Tensor boxes = reshape(boxes_from_centers(out.boxes, sizes), {count, 4});
  // What L1 compares, in shares of the image: corners if the matching does, or centres and sizes.
  const bool corners = options.matching.xyxy_l1;
  const Tensor unit =
      corners ? Tensor::full(sizes.shape(), 1, DType::f32, sizes.device()) : Tensor();
  const auto compared = [&](const Tensor& b) { return corners ? boxes_from_centers(b, unit) : b; };
  const Tensor wanted = boxes_from_centers(targets.boxes, sizes).alias({count, 4});
  losses.emplace_back(
      prefix + "loss_cls",
      scaled_sum({sigmoid_focal_loss(out.logits, targets.labels, classes, options.focal)}, factor,
                 options.classification));
  losses.emplace_back(
      prefix + "loss_bbox",
      scaled_sum({smooth_l1_loss(compared(out.boxes), compared(targets.boxes), targets.weights)},
                 factor, options.boxes));
  losses.emplace_back(prefix + "loss_iou",
                      scaled_sum({iou_loss(boxes, wanted, weights)}, factor, options.iou));
}

void add_layer_losses(Losses& losses, const std::string& prefix,
                      const std::vector<QueryOutputs>& layers,
                      const std::vector<QueryTargets>& targets, const Tensor& sizes,
                      int64_t classes, const QueryLossOptions& options) {
  const size_t last = layers.size() - 1;
  // Queries that start from noise are not those that will be asked.
  if (prefix.empty())
    show_scores({layers[last].logits, targets[last].labels}, ClassTargets::matched);
  add_query_losses(losses, prefix, layers[last], targets[last], sizes, classes, options);
  for (size_t i = 0; i < last; ++i)
    add_query_losses(losses, str("d", i, ".", prefix), layers[i], targets[i], sizes, classes,
                     options);
}

void add_no_losses(Losses& losses, const std::string& prefix, size_t layers) {
  for (size_t i = 0; i < layers; ++i) {
    const std::string of_layer = i == 0 ? prefix : str("d", i - 1, ".", prefix);
    for (const char* name : {"loss_cls", "loss_bbox", "loss_iou"})
      losses.emplace_back(of_layer + name, scaled_sum({}, 1));
  }
}

std::vector<QueryTargets> match_layers(const std::vector<QueryOutputs>& layers, const Truth& truth,
                                       const Tensor& sizes, const QueryLossOptions& options) {
  std::vector<Tensor> logits, boxes;
  for (const QueryOutputs& layer : layers) {
    logits.push_back(layer.logits);
    boxes.push_back(layer.boxes);
  }
  return match_queries(logits, boxes, truth, sizes, options.matching);
}

}  // namespace mixpl
