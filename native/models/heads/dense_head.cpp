#include "models/heads/dense_head.h"

#include <cmath>

#include "ops/learned_scale/learned_scale.h"

namespace mixpl {

DenseHead::DenseHead(const Scope& scope, int64_t in, const DenseHeadSpec& spec,
                     const TowerOptions& towers)
    : class_tower_(scope, "cls_convs", in, towers),
      box_tower_(scope, "reg_convs", in, towers),
      has_quality_(!spec.quality_name.empty()),
      quality_beside_classes_(spec.quality_beside_classes) {
  const auto output = [&](const std::string& name, int64_t channels, float bias) {
    ConvSpec conv;
    conv.in = class_tower_.channels();
    conv.out = channels;
    conv.init = init::normal(0.01f);
    conv.bias = bias;
    return ConvNorm(scope, name, "", conv);
  };
  classes_ = output(spec.classes_name, spec.class_channels, -std::log(99.0f));  // prior 0.01
  boxes_ = output(spec.boxes_name, spec.box_channels, 0);
  if (has_quality_) quality_ = output(spec.quality_name, spec.quality_channels, 0);
  for (int l = 0; l < spec.scales; ++l)
    scales_.push_back(scope.child(str("scales.", l)).weight("scale", {}, init::constant(1)));
}

std::vector<DenseOutputs> DenseHead::operator()(const std::vector<FeatureMaps>& pyramids) const {
  const size_t batches = pyramids.size();
  const std::vector<Tensor> maps = level_after_level(pyramids);
  std::vector<Tensor> logits, boxes, quality;
  {
    const std::vector<Tensor> x = class_tower_(maps);
    logits = classes_(x);
    if (has_quality_ && quality_beside_classes_) quality = quality_(x);
  }
  const std::vector<Tensor> x = box_tower_(maps);
  boxes = boxes_(x);
  if (!scales_.empty())
    for (size_t i = 0; i < maps.size(); ++i)
      boxes[i] = learned_scale(boxes[i], scales_.at(i / batches));
  if (has_quality_ && !quality_beside_classes_) quality = quality_(x);
  const std::vector<FeatureMaps> logits_of = batch_by_batch(logits, batches),
                                 boxes_of = batch_by_batch(boxes, batches),
                                 quality_of = batch_by_batch(quality, batches);
  std::vector<DenseOutputs> out;
  for (size_t b = 0; b < batches; ++b) out.push_back({logits_of[b], boxes_of[b], quality_of[b]});
  return out;
}

}  // namespace mixpl
