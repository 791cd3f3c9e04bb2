#include "models/heads/roi_head.h"

#include <algorithm>
#include <cmath>

#include "core/parallel.h"
#include "detect/box_iou.h"
#include "detect/nms.h"
#include "ops/l1_loss/l1_loss.h"
#include "ops/reshape/reshape.h"
#include "ops/scaled_sum/scaled_sum.h"
#include "ops/softmax_cross_entropy/softmax_cross_entropy.h"

namespace mixpl {

int RegionFeatures::level_of(const Box& box) const {
  const float side = std::sqrt(box_area(box));
  const float level = torchvision ? std::floor(4.0f + std::log2(side / 224.0f) + 1e-6f) - 2.0f
                                  : std::floor(std::log2(side / 56.0f + 1e-6f));
  const float last = static_cast<float>(strides.size()) - 1;
  return static_cast<int>(level > 0 ? std::min(level, last) : 0.0f);
}

Tensor RegionFeatures::operator()(const std::vector<Tensor>& levels, const std::vector<Box>& boxes,
                                  const std::vector<int32_t>& image) const {
  const int64_t count = static_cast<int64_t>(boxes.size());
  Tensor places = Tensor::empty({count, 2}, DType::i32);
  Tensor flat = Tensor::empty({count, 4}, DType::f32);
  for (int64_t i = 0; i < count; ++i) {
    reinterpret_cast<Box*>(flat.data<float>())[i] = boxes[i];
    places.data<int32_t>()[2 * i] = image[i];
    places.data<int32_t>()[2 * i + 1] = level_of(boxes[i]);
  }
  std::vector<float> scales;
  for (double stride : strides) scales.push_back(static_cast<float>(1 / stride));
  const std::vector<Tensor> used(levels.begin(), levels.begin() + strides.size());
  return roi_align(used, scales, flat, places, align);
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
                      true);
    in = o.fc_channels;
  }
  cls_ = Linear(scope, "fc_cls", o.fc_channels, o.classes + 1, init::normal(0.01f));
  reg_ = Linear(scope, "fc_reg", o.fc_channels, o.class_agnostic ? 4 : 4 * o.classes,
                init::normal(0.001f));
}

BoxOutputs BoxHead::operator()(const Tensor& features) const {
  Tensor x = features;
  for (const ConvNorm& conv : convs_) x = conv(x);
  x = reshape(x, {x.size(0), x.size(1) * x.size(2) * x.size(3)});
  for (const Linear& fc : fcs_) x = fc(x);
  return {cls_(x), reg_(x)};
}

std::pair<Tensor, Tensor> BoxHead::loss(const BoxOutputs& out, const RegionTargets& regions,
                                        const std::vector<Tensor>& truth) const {
  const int64_t count = regions.size();
  const int64_t boxes_each = options_.class_agnostic ? 1 : options_.classes;
  Tensor labels = Tensor::from(regions.labels, {count});
  Tensor deltas = Tensor::zeros({count, boxes_each, 4}, DType::f32);
  Tensor weights = Tensor::zeros({count, boxes_each}, DType::f32);
  for (int64_t i = 0; i < count; ++i) {
    if (regions.truth[i] < 0) continue;
    const Box* box = as_boxes("boxHead", "truth", truth[regions.image[i]]);
    const int64_t at = i * boxes_each + (options_.class_agnostic ? 0 : regions.labels[i]);
    reinterpret_cast<Delta*>(deltas.data<float>())[at] =
        options_.coder.encode(regions.boxes[i], box[regions.truth[i]]);
    weights.data<float>()[at] = 1;
  }
  const float scale = 1.0f / static_cast<float>(std::max<int64_t>(count, 1));
  return {
      scaled_sum({softmax_cross_entropy(out.logits, labels)}, scale),
      scaled_sum({smooth_l1_loss(out.deltas, deltas, weights, options_.smooth_l1_beta)}, scale)};
}

namespace {

float number_at(const Tensor& t, int64_t i) {
  return t.dtype() == DType::f32 ? t.data<float>()[i] : float(t.data<bfloat16>()[i]);
}

}  // namespace

Box BoxHead::decode(const BoxOutputs& out, int64_t region, int64_t label, const Box& box) const {
  const int64_t at = options_.class_agnostic ? 4 * region : 4 * (region * options_.classes + label);
  const auto delta = [&](int k) { return number_at(out.deltas, at + k); };
  return options_.coder.decode(box, {delta(0), delta(1), delta(2), delta(3)});
}

RoiTestOptions RoiTestOptions::read(const Options& options, const RoiTestOptions& defaults) {
  RoiTestOptions out = defaults;
  out.score_thr = static_cast<float>(options.number("scoreThr", out.score_thr));
  out.nms_iou = static_cast<float>(options.number("nmsIou", out.nms_iou));
  out.max_per_image = options.integer("maxPerImage", out.max_per_image);
  if (!(out.score_thr >= 0 && out.score_thr <= 1))
    throw ConfigError(str("test.scoreThr must be in [0, 1], got ", out.score_thr));
  if (!(out.nms_iou >= 0 && out.nms_iou <= 1))
    throw ConfigError(str("test.nmsIou must be in [0, 1], got ", out.nms_iou));
  if (out.max_per_image < 1)
    throw ConfigError(str("test.maxPerImage must be >= 1, got ", out.max_per_image));
  return out;
}

std::vector<Detections> detect_regions(const BoxHead& head, const BoxOutputs& out,
                                       const Tensor& logits, const std::vector<Box>& boxes,
                                       const std::vector<int32_t>& image, const ImageBatch& images,
                                       const RoiTestOptions& o) {
  const int64_t classes = logits.size(1) - 1, count = images.pixels.size(0);
  std::vector<Detections> found(count);
  parallel_for(count, int64_t{1}, [&](int64_t n) {
    std::vector<Box> candidates;
    std::vector<float> scores;
    std::vector<int32_t> labels;
    std::vector<float> p(classes + 1);
    for (size_t r = 0; r < boxes.size(); ++r) {
      if (image[r] != n) continue;
      const float* x = logits.data<float>() + static_cast<int64_t>(r) * (classes + 1);
      const float most = *std::max_element(x, x + classes + 1);
      double sum = 0;
      for (int64_t c = 0; c <= classes; ++c) sum += p[c] = std::exp(x[c] - most);
      for (int64_t c = 0; c < classes; ++c) {
        const float score = static_cast<float>(p[c] / sum);
        if (!(score > o.score_thr)) continue;
        const Box box = clip_box(head.decode(out, static_cast<int64_t>(r), c, boxes[r]),
                                 images.sizes[n].height, images.sizes[n].width);
        if (std::isnan(box.x1 + box.y1 + box.x2 + box.y2)) continue;
        if (o.min_size >= 0 && !(box.x2 - box.x1 >= o.min_size && box.y2 - box.y1 >= o.min_size))
          continue;
        candidates.push_back(box);
        scores.push_back(score);
        labels.push_back(static_cast<int32_t>(c));
      }
    }
    Detections& mine = found[n];
    for (int32_t i : nms(candidates, scores, labels, o.nms_iou, o.max_per_image)) {
      const Box& b = candidates[i];
      mine.boxes.insert(mine.boxes.end(), {b.x1, b.y1, b.x2, b.y2});
      mine.scores.push_back(scores[i]);
      mine.labels.push_back(labels[i]);
    }
  });
  return found;
}

RegionList join(const std::vector<std::vector<Box>>& proposals) {
  RegionList out;
  for (size_t n = 0; n < proposals.size(); ++n) {
    out.boxes.insert(out.boxes.end(), proposals[n].begin(), proposals[n].end());
    out.image.insert(out.image.end(), proposals[n].size(), static_cast<int32_t>(n));
  }
  return out;
}

}  // namespace mixpl
