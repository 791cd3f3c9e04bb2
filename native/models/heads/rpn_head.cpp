#include "models/heads/rpn_head.h"

#include <algorithm>
#include <cmath>

#include "core/parallel.h"
#include "detect/nms.h"
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
  out.score_thr = static_cast<float>(o.number("scoreThr", out.score_thr));
  out.nms_iou = static_cast<float>(o.number("nmsIou", out.nms_iou));
  out.min_size = static_cast<float>(o.number("minSize", out.min_size));
  o.finish();
  if (out.channels < 1 || out.channels > 1 << 16)
    throw ConfigError(str("rpn.channels must be in [1, 65536], got ", out.channels));
  if (out.convs < 1 || out.convs > 16)
    throw ConfigError(str("rpn.convs must be in [1, 16], got ", out.convs));
  if (!(out.smooth_l1_beta >= 0) || !std::isfinite(out.smooth_l1_beta))
    throw ConfigError(str("rpn.smoothL1Beta must be >= 0, got ", out.smooth_l1_beta));
  if (!(out.score_thr >= 0 && out.score_thr <= 1))
    throw ConfigError(str("rpn.scoreThr must be in [0, 1], got ", out.score_thr));
  if (!(out.nms_iou >= 0 && out.nms_iou <= 1))
    throw ConfigError(str("rpn.nmsIou must be in [0, 1], got ", out.nms_iou));
  if (!(out.min_size >= 0) || !std::isfinite(out.min_size))
    throw ConfigError(str("rpn.minSize must be >= 0, got ", out.min_size));
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

RpnOutputs RpnHead::operator()(const std::vector<Tensor>& levels, const ImageBatch& images) {
  RpnOutputs out;
  for (size_t l = 0; l < levels.size(); ++l) {
    Tensor x = levels[l];
    for (const ConvNorm& conv : convs_) x = conv(x);
    out.logits.push_back(cls_(x));
    out.deltas.push_back(reg_(x));
    const int64_t h = x.size(1), w = x.size(2);
    const CellStride stride = options_.numerics == Numerics::torchvision
                                  ? torchvision_stride(images.pixels, h, w)
                                  : CellStride{};
    out.anchors.push_back(anchors_.level(static_cast<int>(l), h, w, stride));
  }
  return out;
}

std::vector<std::vector<uint8_t>> RpnHead::valid_anchors(const RpnOutputs& out,
                                                         const ImageBatch& images) const {
  std::vector<std::vector<uint8_t>> valid;
  if (options_.numerics == Numerics::torchvision) return valid;
  int64_t count = 0;
  for (const Tensor& level : out.anchors) count += level.size(0);
  for (size_t n = 0; n < images.sizes.size(); ++n) {
    std::vector<uint8_t> own(count, 1);
    uint8_t* at = own.data();
    for (size_t l = 0; l < out.anchors.size(); at += out.anchors[l++].size(0)) {
      mark_valid_anchors(options_.anchors, static_cast<int>(l), out.logits[l].size(1),
                         out.logits[l].size(2), images.pad_sizes[n].height,
                         images.pad_sizes[n].width, at);
      if (options_.allowed_border < 0) continue;
      const Box* anchor = reinterpret_cast<const Box*>(out.anchors[l].data<float>());
      const float border = options_.allowed_border;
      for (int64_t i = 0; i < out.anchors[l].size(0); ++i)
        at[i] &= anchor[i].x1 >= -border && anchor[i].y1 >= -border &&
                 anchor[i].x2 < images.sizes[n].width + border &&
                 anchor[i].y2 < images.sizes[n].height + border;
    }
    valid.push_back(std::move(own));
  }
  return valid;
}

std::pair<Tensor, Tensor> RpnHead::loss(const RpnOutputs& out, const ImageBatch& images,
                                        const std::vector<Tensor>& boxes,
                                        const Philox& random) const {
  const AnchorTargets wanted =
      sample_anchor_targets(out.anchors, boxes, valid_anchors(out, images), options_.coder,
                            options_.assign, options_.sampler, random);
  std::vector<Tensor> classification, regression;
  for (size_t l = 0; l < out.logits.size(); ++l) {
    classification.push_back(sigmoid_bce(out.logits[l], wanted.objectness[l], wanted.sampled[l]));
    regression.push_back(smooth_l1_loss(out.deltas[l], wanted.deltas[l], wanted.positive[l],
                                        options_.smooth_l1_beta));
  }
  const float scale = 1.0f / static_cast<float>(wanted.num_sampled);
  return {scaled_sum(classification, scale), scaled_sum(regression, scale)};
}

namespace {

struct Candidate {
  float logit;
  int32_t anchor;
  bool operator<(const Candidate& other) const {  // best first
    return logit != other.logit ? logit > other.logit : anchor < other.anchor;
  }
};

float number_at(const Tensor& t, int64_t i) {
  return t.dtype() == DType::f32 ? t.data<float>()[i] : float(t.data<bfloat16>()[i]);
}

}  // namespace

std::vector<std::vector<Box>> RpnHead::propose(const RpnOutputs& out, const ImageBatch& images,
                                               bool training) const {
  const ProposalOptions& o = training ? options_.train : options_.test;
  const int64_t count = images.pixels.size(0);
  std::vector<std::vector<Box>> proposals(count);
  parallel_for(count, int64_t{1}, [&](int64_t n) {
    std::vector<Box> boxes;
    std::vector<float> scores;
    std::vector<int32_t> levels;
    for (size_t l = 0; l < out.logits.size(); ++l) {
      const int64_t anchors = out.anchors[l].size(0);
      std::vector<Candidate> best;
      for (int64_t i = 0; i < anchors; ++i) {
        const float logit = number_at(out.logits[l], n * anchors + i);
        if (!std::isnan(logit)) best.push_back({logit, static_cast<int32_t>(i)});
      }
      if (static_cast<int64_t>(best.size()) > o.nms_pre) {
        std::nth_element(best.begin(), best.begin() + o.nms_pre, best.end());
        best.resize(o.nms_pre);
      }
      std::sort(best.begin(), best.end());
      const Box* anchor = reinterpret_cast<const Box*>(out.anchors[l].data<float>());
      for (const Candidate& c : best) {
        const int64_t at = 4 * (n * anchors + c.anchor);
        const auto delta = [&](int k) { return number_at(out.deltas[l], at + k); };
        const Box box = clip_box(
            options_.coder.decode(anchor[c.anchor], {delta(0), delta(1), delta(2), delta(3)}),
            images.sizes[n].height, images.sizes[n].width);
        const float w = box.x2 - box.x1, h = box.y2 - box.y1, least = options_.min_size;
        const bool torchvision = options_.numerics == Numerics::torchvision;
        if (!(torchvision ? w >= least && h >= least : w > least && h > least)) continue;
        const float score = 1.0f / (1.0f + std::exp(-c.logit));
        if (!(score >= options_.score_thr)) continue;
        boxes.push_back(box);
        scores.push_back(score);
        levels.push_back(static_cast<int32_t>(l));
      }
    }
    for (int32_t i : nms(boxes, scores, levels, options_.nms_iou, o.max_per_image))
      proposals[n].push_back(boxes[i]);
  });
  return proposals;
}

}  // namespace mixpl
