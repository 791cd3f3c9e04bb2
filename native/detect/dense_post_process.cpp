#include "detect/dense_post_process.h"

#include <cmath>

#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "detect/pyramid.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

void check_levels(const std::vector<DenseLevel>& levels, const Tensor& sizes, int64_t classes,
                  ScoreRule rule) {
  const int64_t images = sizes.size(0);
  const Check check("densePostProcess");
  check.at_least("classes", static_cast<double>(classes), 1);
  check.in_range("levels (their number)", static_cast<double>(levels.size()), 0, kMostLevels);
  const bool needs_quality = rule == ScoreRule::product || rule == ScoreRule::geometric_mean;
  for (size_t l = 0; l < levels.size(); ++l) {
    const auto holds = [&](const char* name, const Tensor& t, int64_t each) {
      check.floating(name, t);
      if (t.numel() != images * levels[l].anchors() * each)
        throw ShapeError(str("densePostProcess: ", name, " of level ", l, " must hold ", images,
                             " x ", levels[l].anchors(), " x ", each, " numbers, got ", t.shape()));
    };
    check.in_range("anchors x classes of a level",
                   static_cast<double>(levels[l].anchors()) * static_cast<double>(classes), 0,
                   2147483647);
    holds("logits", levels[l].logits, classes);
    check.same_device("logits", levels[l].logits, sizes);
    check.same_device("boxes", levels[l].boxes.values, sizes);
    if (!needs_quality) continue;
    holds("quality", levels[l].quality, 1);
    check.same_device("quality", levels[l].quality, sizes);
  }
}

// A level's tensors and numbers, one after the other; what a level has no use for is not defined.
void note_levels(const std::vector<DenseLevel>& levels, int64_t classes,
                 const DensePostProcessOptions& o) {
  std::vector<Tensor> inputs;
  Trace::Numbers numbers{{"classes", static_cast<double>(classes)},
                         {"scoreRule", static_cast<double>(o.score_rule)},
                         {"scoreThr", o.score_thr},
                         {"nmsPre", static_cast<double>(o.nms_pre)},
                         {"perAnchor", o.per_anchor},
                         {"vote", o.vote},
                         {"nmsIou", o.nms_iou},
                         {"maxPerImage", static_cast<double>(o.max_per_image)},
                         {"minSize", o.min_size}};
  for (size_t l = 0; l < levels.size(); ++l) {
    inputs.insert(inputs.end(), {levels[l].logits, levels[l].quality});
    levels[l].boxes.note(l, inputs, numbers);
  }
  note("denseDetections", inputs, {}, std::move(numbers));
}

}  // namespace

DensePostProcessOptions DensePostProcessOptions::read(const Options& options,
                                                      const DensePostProcessOptions& defaults) {
  DensePostProcessOptions out = defaults;
  out.score_thr = static_cast<float>(options.number("scoreThr", out.score_thr));
  out.nms_pre = options.integer("nmsPre", out.nms_pre);
  out.nms_iou = static_cast<float>(options.number("nmsIou", out.nms_iou));
  out.max_per_image = options.integer("maxPerImage", out.max_per_image);
  out.validate();
  return out;
}

void DensePostProcessOptions::validate() const {
  const auto share = [](const char* name, float value) {
    if (!(value >= 0 && value <= 1))
      throw ConfigError(str("test.", name, " must be in [0, 1], got ", value));
  };
  share("scoreThr", score_thr);
  share("nmsIou", nms_iou);
  if (nms_pre < 1) throw ConfigError(str("test.nmsPre must be >= 1, got ", nms_pre));
  if (max_per_image < 1)
    throw ConfigError(str("test.maxPerImage must be >= 1, got ", max_per_image));
  if (!std::isfinite(min_size))
    throw ConfigError(str("test.minSize must be finite, got ", min_size));
}

DenseScores scores_of(const DenseLevel& level, int64_t classes, const DensePostProcessOptions& o) {
  return {Numbers::of(level.logits),
          level.quality.defined() ? Numbers::of(level.quality) : Numbers{},
          level.anchors(),
          classes,
          o.score_rule,
          o.score_thr,
          DenseScores::sieve_of(o.score_rule, o.score_thr)};
}

PendingDetections dense_post_process(const std::vector<DenseLevel>& levels, const Tensor& sizes,
                                     int64_t classes, const DensePostProcessOptions& o) {
  const Check check("densePostProcess");
  check.dtype("sizes", sizes, DType::f32);
  check.shape("sizes", sizes, {sizes.numel() / 2, 2}, "height, width");
  check_levels(levels, sizes, classes, o.score_rule);
  if (levels.empty()) return std::vector<Detections>(sizes.size(0));
  if (is_traced()) note_levels(levels, classes, o);
  return MIXPL_DISPATCH(sizes.device(), dense_post_process, levels, sizes, classes, o);
}

namespace {

ScoreRule parse_rule(const std::string& text) {
  if (text == "classes") return ScoreRule::classes;
  if (text == "product") return ScoreRule::product;
  if (text == "geometricMean") return ScoreRule::geometric_mean;
  if (text == "probabilities") return ScoreRule::probabilities;
  throw ConfigError(
      str("densePostProcess: scoreRule must be 'classes', 'product', 'geometricMean' or "
          "'probabilities', got '",
          text, "'"));
}

// Inputs: logits, deltas, anchors of every level in turn, with the rules that need it quality after
// logits; { classes, heights, widths, scoreRule, scoreThr, nmsPre, perAnchor, nmsIou, maxPerImage,
// minSize, vote }. Outputs: boxes, scores, labels of every image in turn.
const bool registered = register_op("densePostProcess", [](const std::vector<Tensor>& in,
                                                           const Options& o) {
  DensePostProcessOptions options = DensePostProcessOptions::read(o, {});
  options.min_size = static_cast<float>(o.number("minSize", 0));
  options.score_rule = parse_rule(o.text("scoreRule", "classes"));
  options.per_anchor = o.boolean("perAnchor", false);
  options.vote = o.boolean("vote", false);
  options.validate();
  const bool quality =
      options.score_rule == ScoreRule::product || options.score_rule == ScoreRule::geometric_mean;
  const size_t each = quality ? 4 : 3;
  if (in.size() % each != 0)
    throw ShapeError(str("densePostProcess: needs logits, ", quality ? "quality, " : "",
                         "deltas, anchors per level, got ", in.size(), " tensors"));
  const std::vector<double> heights = o.numbers("heights", {}), widths = o.numbers("widths", {});
  if (heights.size() != widths.size())
    throw ShapeError(str("densePostProcess: widths must hold ", heights.size(),
                         " numbers (one per image), got ", widths.size()));
  std::vector<float> extents;
  for (size_t i = 0; i < heights.size(); ++i)
    extents.insert(extents.end(), {static_cast<float>(heights[i]), static_cast<float>(widths[i])});
  const int64_t images = static_cast<int64_t>(heights.size());
  const Tensor sizes = Tensor::from(extents, {images, 2}, in.empty() ? Device() : in[0].device());
  std::vector<DenseLevel> levels;
  for (size_t i = 0; i < in.size(); i += each) {
    const Tensor &deltas = in[i + each - 2], &anchors = in[i + each - 1];
    levels.push_back(
        {in[i], quality ? in[i + 1] : Tensor(), delta_decoder(deltas, anchors, {}, images)});
  }
  std::vector<Tensor> out;
  const int64_t classes = o.integer("classes", 1);
  for (const Detections& d : dense_post_process(levels, sizes, classes, options).get()) {
    const int64_t n = static_cast<int64_t>(d.scores.size());
    out.push_back(Tensor::from(d.boxes, {n, 4}));
    out.push_back(Tensor::from(d.scores, {n}));
    out.push_back(Tensor::from(d.labels, {n}));
  }
  return out;
});
}  // namespace

}  // namespace mixpl
