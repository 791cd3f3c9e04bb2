#include "detect/dense_post_process.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/parallel.h"
#include "detect/box_iou.h"
#include "detect/nms.h"
#include "detect/score_voting.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

struct Candidate {
  float score;
  int64_t index;  // anchor * classes + class, within an image and a level
};

// Higher score first, ties by index: the same choice on every run.
bool better(const Candidate& a, const Candidate& b) {
  return a.score != b.score ? a.score > b.score : a.index < b.index;
}

void keep_best(std::vector<Candidate>& candidates, int64_t most) {
  if (static_cast<int64_t>(candidates.size()) <= most) return;
  std::nth_element(candidates.begin(), candidates.begin() + most, candidates.end(), better);
  candidates.resize(most);
}

// The candidates, in order of index, of the `most` anchors whose best class has the highest score.
void keep_best_anchors(std::vector<Candidate>& candidates, int64_t most, int64_t classes) {
  std::vector<Candidate> anchors;  // index: of the anchor
  for (const Candidate& c : candidates) {
    const int64_t anchor = c.index / classes;
    if (anchors.empty() || anchors.back().index != anchor)
      anchors.push_back({c.score, anchor});
    else
      anchors.back().score = std::max(anchors.back().score, c.score);
  }
  if (static_cast<int64_t>(anchors.size()) <= most) return;
  keep_best(anchors, most);
  std::sort(anchors.begin(), anchors.end(),
            [](const Candidate& a, const Candidate& b) { return a.index < b.index; });
  auto next = anchors.begin();
  std::erase_if(candidates, [&](const Candidate& c) {
    while (next != anchors.end() && next->index < c.index / classes) ++next;
    return next == anchors.end() || next->index != c.index / classes;
  });
}

// f(i) for x[i] > sieve in [begin, end), without a branch for each of the many that are not.
template <typename T, typename F>
void sift(const T* x, int64_t begin, int64_t end, float sieve, F&& f) {
  constexpr int64_t kBlock = 64;
  for (; begin < end; begin += kBlock) {
    const int64_t stop = std::min(end, begin + kBlock);
    int any = 0;
    for (int64_t i = begin; i < stop; ++i) any |= static_cast<float>(x[i]) > sieve;
    if (!any) continue;
    for (int64_t i = begin; i < stop; ++i)
      if (static_cast<float>(x[i]) > sieve) f(i);
  }
}

float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

float at(const Tensor& t, int64_t i) {
  return t.dtype() == DType::f32 ? t.data<float>()[i] : float(t.data<bfloat16>()[i]);
}

// The scores of one level, by (anchor, class) pair.
struct LevelScores {
  const DenseLevel& level;
  int64_t classes;
  const DensePostProcessOptions& options;

  float quality(int64_t image, int64_t anchor) const {
    return sigmoid(at(level.quality, image * level.anchors + anchor));
  }
  // At or below every logit whose score exceeds the threshold: a first sieve without exponentials.
  float sieve() const {
    float thr = options.score_thr;
    if (options.score_rule == ScoreRule::probabilities) return thr;
    if (options.score_rule == ScoreRule::geometric_mean) thr *= thr;  // quality is at most 1
    if (thr <= 0) return -INFINITY;
    return thr >= 1 ? INFINITY : std::log(thr / (1 - thr)) - 1e-3f;
  }
  // Pairs [begin, end) of an image whose score, as far as it decides who stays, is high enough.
  std::vector<Candidate> above_threshold(int64_t image, int64_t begin, int64_t end) const {
    std::vector<Candidate> found;
    dispatch_floating(level.logits.dtype(), [&](auto tag) {
      const auto* x = level.logits.data<decltype(tag)>() + image * level.anchors * classes;
      sift(x, begin, end, sieve(), [&](int64_t i) {
        float score = static_cast<float>(x[i]);
        if (options.score_rule != ScoreRule::probabilities) score = sigmoid(score);
        if (options.score_rule == ScoreRule::geometric_mean)
          score = std::sqrt(score * quality(image, i / classes));
        if (score > options.score_thr) found.push_back({score, i});
      });
    });
    return found;
  }
  float final_score(int64_t image, const Candidate& c) const {
    if (options.score_rule != ScoreRule::product) return c.score;
    return c.score * quality(image, c.index / classes);
  }
};

// A piece of one level of one image.
struct Piece {
  int64_t image;
  size_t level;
  int64_t begin, end;
};

void check_levels(const std::vector<DenseLevel>& levels, int64_t images, int64_t classes,
                  ScoreRule rule) {
  const Check check("densePostProcess");
  check.at_least("classes", static_cast<double>(classes), 1);
  const bool needs_quality = rule == ScoreRule::product || rule == ScoreRule::geometric_mean;
  for (size_t l = 0; l < levels.size(); ++l) {
    const auto holds = [&](const char* name, const Tensor& t, int64_t each) {
      check.floating(name, t);
      if (t.numel() != images * levels[l].anchors * each)
        throw ShapeError(str("densePostProcess: ", name, " of level ", l, " must hold ", images,
                             " x ", levels[l].anchors, " x ", each, " numbers, got ", t.shape()));
    };
    holds("logits", levels[l].logits, classes);
    if (needs_quality) holds("quality", levels[l].quality, 1);
  }
}

// Four numbers of an anchor's box, whatever their type.
struct Fours {
  Tensor values;
  Delta operator[](int64_t i) const {
    return {at(values, 4 * i), at(values, 4 * i + 1), at(values, 4 * i + 2), at(values, 4 * i + 3)};
  }
};

Fours fours(const char* name, const Tensor& values, int64_t rows) {
  Check("densePostProcess").floating(name, values);
  if (values.numel() != rows * 4)
    throw ShapeError(
        str("densePostProcess: ", name, " must hold ", rows, " x 4 numbers, got ", values.shape()));
  return {values};
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

std::function<Box(int64_t, int64_t)> delta_decoder(const Tensor& deltas, const Tensor& anchors,
                                                   const DeltaCoder& coder, int64_t images) {
  const Box* anchor = as_boxes("densePostProcess", "anchors", anchors);
  const int64_t count = anchors.size(0);
  return [own = fours("deltas", deltas, images * count), anchors, anchor, coder, count](
             int64_t image, int64_t i) { return coder.decode(anchor[i], own[image * count + i]); };
}

std::function<Box(int64_t, int64_t)> side_decoder(const Tensor& sides, const PointGrid& grid,
                                                  int64_t images) {
  const float unit = static_cast<float>(grid.unit);
  return
      [own = fours("sides", sides, images * grid.count()), grid, unit](int64_t image, int64_t i) {
        const Delta d = own[image * grid.count() + i];
        return decode_sides(grid.x(i), grid.y(i), {d.x * unit, d.y * unit, d.w * unit, d.h * unit});
      };
}

std::vector<Detections> dense_post_process(const std::vector<DenseLevel>& levels,
                                           const std::vector<std::array<float, 2>>& sizes,
                                           int64_t classes, const DensePostProcessOptions& o) {
  const int64_t images = static_cast<int64_t>(sizes.size());
  check_levels(levels, images, classes, o.score_rule);

  // Whole anchors.
  const int64_t piece_size = std::max<int64_t>((1 << 16) / classes, 1) * classes;
  const auto keep = [&](std::vector<Candidate>& candidates) {
    if (o.per_anchor)
      keep_best_anchors(candidates, o.nms_pre, classes);
    else
      keep_best(candidates, o.nms_pre);
  };
  std::vector<Piece> pieces;
  for (int64_t n = 0; n < images; ++n)
    for (size_t l = 0; l < levels.size(); ++l) {
      const int64_t count = levels[l].anchors * classes;
      for (int64_t begin = 0; begin < count; begin += piece_size)
        pieces.push_back({n, l, begin, std::min(count, begin + piece_size)});
    }
  std::vector<std::vector<Candidate>> found(pieces.size());
  parallel_for(static_cast<int64_t>(pieces.size()), int64_t{1}, [&](int64_t p) {
    const Piece& piece = pieces[p];
    found[p] = LevelScores{levels[piece.level], classes, o}.above_threshold(piece.image,
                                                                            piece.begin, piece.end);
    keep(found[p]);
  });

  std::vector<Detections> out(images);
  parallel_for(images, int64_t{1}, [&](int64_t n) {
    std::vector<Box> boxes;
    std::vector<float> scores;
    std::vector<int32_t> labels;
    size_t p = std::find_if(pieces.begin(), pieces.end(),
                            [&](const Piece& piece) { return piece.image == n; }) -
               pieces.begin();
    for (size_t l = 0; l < levels.size(); ++l) {
      const LevelScores level{levels[l], classes, o};
      std::vector<Candidate> candidates;
      for (; p < pieces.size() && pieces[p].image == n && pieces[p].level == l; ++p)
        candidates.insert(candidates.end(), found[p].begin(), found[p].end());
      keep(candidates);
      std::sort(candidates.begin(), candidates.end(), better);
      for (const Candidate& c : candidates) {
        const Box box = clip_box(levels[l].decode(n, c.index / classes), sizes[n][0], sizes[n][1]);
        if (o.min_size >= 0 && !(box.x2 - box.x1 > o.min_size && box.y2 - box.y1 > o.min_size))
          continue;
        boxes.push_back(box);
        scores.push_back(level.final_score(n, c));
        labels.push_back(static_cast<int32_t>(c.index % classes));
      }
    }
    Detections& mine = out[n];
    const std::vector<int32_t> kept = nms(boxes, scores, labels, o.nms_iou, o.max_per_image);
    const std::vector<Box> voted =
        o.vote ? vote_boxes(boxes, scores, labels, kept) : std::vector<Box>{};
    for (size_t k = 0; k < kept.size(); ++k) {
      const Box& box = o.vote ? voted[k] : boxes[kept[k]];
      mine.boxes.insert(mine.boxes.end(), {box.x1, box.y1, box.x2, box.y2});
      mine.scores.push_back(scores[kept[k]]);
      mine.labels.push_back(labels[kept[k]]);
    }
  });
  return out;
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
                         " numbers (one an image), got ", widths.size()));
  std::vector<std::array<float, 2>> sizes;
  for (size_t i = 0; i < heights.size(); ++i)
    sizes.push_back({static_cast<float>(heights[i]), static_cast<float>(widths[i])});
  const int64_t images = static_cast<int64_t>(sizes.size());
  std::vector<DenseLevel> levels;
  for (size_t i = 0; i < in.size(); i += each) {
    const Tensor &deltas = in[i + each - 2], &anchors = in[i + each - 1];
    as_boxes("densePostProcess", "anchors", anchors);
    levels.push_back({in[i], quality ? in[i + 1] : Tensor(), anchors.size(0),
                      delta_decoder(deltas, anchors, {}, images)});
  }
  std::vector<Tensor> out;
  for (const Detections& d : dense_post_process(levels, sizes, o.integer("classes", 1), options)) {
    const int64_t n = static_cast<int64_t>(d.scores.size());
    out.push_back(Tensor::from(d.boxes, {n, 4}));
    out.push_back(Tensor::from(d.scores, {n}));
    out.push_back(Tensor::from(d.labels, {n}));
  }
  return out;
});
}  // namespace

}  // namespace mixpl
