#include "models/heads/rpn_head.h"

#include <algorithm>
#include <cmath>

#include "ops/l1_loss/l1_loss.h"
#include "ops/scaled_sum/scaled_sum.h"
#include "ops/sigmoid_bce/sigmoid_bce.h"

namespace mixpl {

RpnOptions RpnOptions::read(const Options& o, Numerics numerics, const RpnOptions& defaults) {
  RpnOptions out = defaults;
  const bool torchvision = numerics == Numerics::torchvision;
  out.numerics = numerics;
  out.channels = o.integer("channels", out.channels);
  out.convs = static_cast<int>(o.integer("convs", out.convs));
  out.anchors.strides = o.numbers("strides", out.anchors.strides);
  out.anchors.ratios = o.numbers("ratios", out.anchors.ratios);
  out.anchors.scales = o.numbers("scales", out.anchors.scales);
  if (torchvision) {
    for (double stride : out.anchors.strides) {
      out.anchors.sizes.emplace_back();
      for (double scale : out.anchors.scales)
        out.anchors.sizes.back().push_back(std::max(1.0, std::floor(stride * scale)));
    }
    out.anchors.round = true;
    out.coder.both_sides = false;
    out.assign.low_quality = LowQuality::restore_best;
    out.train.may_equal_size = out.test.may_equal_size = true;
  }
  out.anchors.validate();
  out.assign.pos_iou = static_cast<float>(o.number("posIou", out.assign.pos_iou));
  out.assign.neg_iou = static_cast<float>(o.number("negIou", out.assign.neg_iou));
  out.assign.min_pos_iou = static_cast<float>(o.number("minPosIou", out.assign.min_pos_iou));
  out.assign.validate();
  out.sampler = SamplerOptions::read(o, out.sampler, "rpn");
  out.allowed_border = static_cast<float>(o.number("allowedBorder", out.allowed_border));
  out.smooth_l1_beta = static_cast<float>(o.number("smoothL1Beta", out.smooth_l1_beta));
  out.train.nms_pre = o.integer("trainNmsPre", out.train.nms_pre);
  out.train.max_per_image = o.integer("trainMaxPerImage", out.train.max_per_image);
  out.test.nms_pre = o.integer("testNmsPre", out.test.nms_pre);
  out.test.max_per_image = o.integer("testMaxPerImage", out.test.max_per_image);
  out.train.score_thr = static_cast<float>(o.number("scoreThr", out.train.score_thr));
  out.train.nms_iou = static_cast<float>(o.number("nmsIou", out.train.nms_iou));
  out.train.min_size = static_cast<float>(o.number("minSize", out.train.min_size));
  out.test.score_thr = out.train.score_thr;
  out.test.nms_iou = out.train.nms_iou;
  out.test.min_size = out.train.min_size;
  o.finish();
  if (out.channels < 1 || out.channels > 1 << 16)
    throw ConfigError(str("rpn.channels must be in [1, 65536], got ", out.channels));
  if (out.convs < 1 || out.convs > 16)
    throw ConfigError(str("rpn.convs must be in [1, 16], got ", out.convs));
  if (!(out.smooth_l1_beta >= 0) || !std::isfinite(out.smooth_l1_beta))
    throw ConfigError(str("rpn.smoothL1Beta must be >= 0, got ", out.smooth_l1_beta));
  if (!(out.train.score_thr >= 0 && out.train.score_thr <= 1))
    throw ConfigError(str("rpn.scoreThr must be in [0, 1], got ", out.train.score_thr));
  if (!(out.train.nms_iou >= 0 && out.train.nms_iou <= 1))
    throw ConfigError(str("rpn.nmsIou must be in [0, 1], got ", out.train.nms_iou));
  if (!(out.train.min_size >= 0) || !std::isfinite(out.train.min_size))
    throw ConfigError(str("rpn.minSize must be >= 0, got ", out.train.min_size));
  for (int64_t count :
       {out.train.nms_pre, out.train.max_per_image, out.test.nms_pre, out.test.max_per_image})
    if (count < 1) throw ConfigError(str("rpn: numbers of proposals must be >= 1, got ", count));
  return out;
}

RpnHead::RpnHead(const Scope& scope, int64_t in, const RpnOptions& options)
    : options_(options), anchors_(options.anchors) {
  ConvSpec spec;
  spec.in = in;
  spec.out = options.channels;
  spec.relu = true;
  spec.init = init::normal(0.01f);
  for (int i = 0; i < options.convs; ++i) {
    // mmdetection: a plain convolution where there is one, a list of modules where there are more.
    convs_.push_back(options.convs == 1
                         ? ConvNorm(scope, "rpn_conv", "", spec)
                         : ConvNorm(scope.child(str("rpn_conv.", i)), "conv", "", spec));
    spec.in = options.channels;
  }
  const int64_t per_cell = options.anchors.per_cell();
  spec.relu = false;
  spec.kernel = 1;
  spec.out = per_cell;
  cls_ = ConvNorm(scope, "rpn_cls", "", spec);
  spec.out = 4 * per_cell;
  reg_ = ConvNorm(scope, "rpn_reg", "", spec);
}

std::vector<RpnMaps> RpnHead::operator()(const std::vector<FeatureMaps>& pyramids) const {
  const size_t batches = pyramids.size();
  std::vector<Tensor> x = level_after_level(pyramids);
  for (const ConvNorm& conv : convs_) x = conv(x);
  const std::vector<FeatureMaps> logits = batch_by_batch(cls_(x), batches),
                                 deltas = batch_by_batch(reg_(x), batches);
  std::vector<RpnMaps> out;
  for (size_t b = 0; b < batches; ++b) out.push_back({logits[b], deltas[b]});
  return out;
}

RpnOutputs RpnHead::with_anchors(const RpnMaps& maps, const ImageBatch& images) {
  RpnOutputs out{maps, {}};
  std::vector<CellStride> strides;
  if (options_.numerics == Numerics::torchvision)
    for (const Tensor& map : maps.logits)
      strides.push_back(torchvision_stride(images.pixels, map.size(1), map.size(2)));
  out.anchors = anchors_.levels(out.logits, strides);
  return out;
}

Tensor RpnHead::valid_anchors(const RpnOutputs& out, const ImageBatch& images) const {
  if (options_.numerics == Numerics::torchvision) return {};
  const Tensor valid = mixpl::valid_anchors(options_.anchors, out.logits, images);
  if (options_.allowed_border < 0) return valid;
  return anchors_inside(out.anchors, valid, sizes_of(images), options_.allowed_border);
}

std::pair<Tensor, Tensor> RpnHead::loss(const RpnOutputs& out, const ImageBatch& images,
                                        const Truth& truth, const Philox& random) const {
  const int64_t least = options_.numerics == Numerics::mmdetection ? 1 : 0;
  const AnchorTargets wanted =
      sample_anchor_targets(out.anchors, truth, valid_anchors(out, images), options_.coder,
                            options_.assign, options_.sampler, least, random);
  std::vector<Tensor> classification, regression;
  for (size_t l = 0; l < out.logits.size(); ++l) {
    classification.push_back(sigmoid_bce(out.logits[l], wanted.objectness[l], wanted.sampled[l]));
    regression.push_back(smooth_l1_loss(out.deltas[l], wanted.deltas[l], wanted.positive[l],
                                        options_.smooth_l1_beta));
  }
  return {scaled_sum(classification, wanted.num_sampled),
          scaled_sum(regression, wanted.num_sampled)};
}

Regions RpnHead::propose(const RpnOutputs& out, const ImageBatch& images, bool training) const {
  std::vector<ProposalLevel> levels;
  for (size_t l = 0; l < out.logits.size(); ++l)
    levels.push_back({out.logits[l], delta_decoder(out.deltas[l], out.anchors.levels[l],
                                                   options_.coder, images.pixels.size(0))});
  return propose_regions(levels, sizes_of(images), training ? options_.train : options_.test);
}

}  // namespace mixpl
