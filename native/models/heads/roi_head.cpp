#include "models/heads/roi_head.h"

#include <cmath>

#include "core/trace.h"
#include "models/probe.h"
#include "ops/l1_loss/l1_loss.h"
#include "ops/reshape/reshape.h"
#include "ops/scaled_sum/scaled_sum.h"
#include "ops/softmax_cross_entropy/softmax_cross_entropy.h"

namespace mixpl {

Tensor RegionFeatures::operator()(const std::vector<Tensor>& levels, const Regions& regions) const {
  std::vector<float> scales;
  for (double stride : strides) scales.push_back(static_cast<float>(1 / stride));
  const std::vector<Tensor> used(levels.begin(), levels.begin() + strides.size());
  const Tensor places = places_of(regions, {static_cast<int>(strides.size()), torchvision});
  const Tensor features = roi_align(used, scales, regions.boxes, places, align);
  if (is_traced()) {
    std::vector<Tensor> inputs = used;
    inputs.push_back(regions.boxes);
    Trace::Numbers numbers{{"size", align.size},
                           {"samplingRatio", align.sampling_ratio},
                           {"aligned", align.aligned},
                           {"torchvision", torchvision}};
    for (size_t l = 0; l < scales.size(); ++l) numbers[str("scale", l)] = scales[l];
    note("regionFeatures", inputs, {features}, std::move(numbers));
  }
  return features;
}

void BoxHeadOptions::validate() const {
  if (fc_channels < 1 || fc_channels > 1 << 16)
    throw ConfigError(str("roi.fcChannels must be in [1, 65536], got ", fc_channels));
  if (convs < 0 || convs > 16) throw ConfigError(str("roi.convs must be in [0, 16], got ", convs));
  if (conv_channels < 1 || conv_channels > 1 << 16)
    throw ConfigError(str("roi.convChannels must be in [1, 65536], got ", conv_channels));
  if (norm != NormKind::none && norm != NormKind::bn && norm != NormKind::gn)
    throw ConfigError("roi.norm must be 'none', 'bn' or 'gn'");
  if (fcs < 1 || fcs > 16) throw ConfigError(str("roi.fcs must be in [1, 16], got ", fcs));
  if (!(smooth_l1_beta >= 0) || !std::isfinite(smooth_l1_beta))
    throw ConfigError(str("roi.smoothL1Beta must be >= 0, got ", smooth_l1_beta));
}

BoxHead::BoxHead(const Scope& scope, const BoxHeadOptions& o) : options_(o) {
  int64_t channels = o.in;
  for (int i = 0; i < o.convs; ++i) {
    ConvSpec spec;
    spec.in = channels;
    spec.out = channels = o.conv_channels;
    spec.norm = o.norm;
    spec.relu = true;
    spec.init = init::kaiming_normal_fan_out();
    convs_.emplace_back(scope.child(str("shared_convs.", i)), "conv", norm_name(o.norm), spec);
  }
  int64_t in = channels * o.size * o.size;
  for (int i = 0; i < o.fcs; ++i) {
    fcs_.emplace_back(scope.child("shared_fcs"), str(i), in, o.fc_channels, init::xavier_uniform(),
                      LinearOptions{true});
    in = o.fc_channels;
  }
  cls_ = Linear(scope, "fc_cls", o.fc_channels, o.classes + 1, init::normal(0.01f));
  reg_ = Linear(scope, "fc_reg", o.fc_channels, o.class_agnostic ? 4 : 4 * o.classes,
                init::normal(0.001f));
}

BoxOutputs BoxHead::operator()(const Tensor& features, const Regions& regions) const {
  Tensor x = features;
  for (const ConvNorm& conv : convs_) x = conv(x, {}, regions.owners());
  x = reshape(x, {x.size(0), x.size(1) * x.size(2) * x.size(3)});
  for (const Linear& fc : fcs_) x = fc(x);
  return {cls_(x), reg_(x)};
}

std::pair<Tensor, Tensor> BoxHead::loss(const BoxOutputs& out, const RegionTargets& targets) const {
  show_scores({out.logits, targets.labels, {}, targets.regions.image}, ClassTargets::softmax);
  const RegionDeltas wanted = region_deltas(
      targets, options_.classes, options_.class_agnostic ? 1 : options_.classes, options_.coder);
  return {scaled_sum({softmax_cross_entropy(out.logits, targets.labels)}, targets.num_regions),
          scaled_sum(
              {smooth_l1_loss(out.deltas, wanted.deltas, wanted.weights, options_.smooth_l1_beta)},
              targets.num_regions)};
}

}  // namespace mixpl
