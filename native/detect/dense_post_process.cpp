#include "detect/dense_post_process.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/parallel.h"
#include "detect/box_iou.h"
#include "detect/nms.h"
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

// Pairs of x[begin, end) above the threshold. `sieve` is at or below the threshold's logit.
template <typename T>
std::vector<Candidate> above(const T* x, int64_t begin, int64_t end, float sieve, float thr) {
  constexpr int64_t kBlock = 64;
  std::vector<Candidate> found;
  for (; begin < end; begin += kBlock) {
    const int64_t stop = std::min(end, begin + kBlock);
    int any = 0;
    for (int64_t i = begin; i < stop; ++i) any |= static_cast<float>(x[i]) > sieve;
    if (!any) continue;
    for (int64_t i = begin; i < stop; ++i) {
      const float v = static_cast<float>(x[i]);
      if (!(v > sieve)) continue;
      const float score = 1.0f / (1.0f + std::exp(-v));
      if (score > thr) found.push_back({score, i});
    }
  }
  return found;
}

// A piece of one level of one image.
struct Piece {
  int64_t image;
  size_t level;
  int64_t begin, end;
};

void check_arguments(const std::vector<Tensor>& logits, const std::vector<Tensor>& deltas,
                     const std::vector<Tensor>& anchors, int64_t images, int64_t classes) {
  const Check check("densePostProcess");
  if (deltas.size() != logits.size() || anchors.size() != logits.size())
    throw ShapeError(str("densePostProcess: deltas and anchors must have one tensor per level (",
                         logits.size(), "), got ", deltas.size(), " and ", anchors.size()));
  check.at_least("classes", static_cast<double>(classes), 1);
  for (size_t l = 0; l < logits.size(); ++l) {
    as_boxes("densePostProcess", "anchors", anchors[l]);
    check.floating("logits", logits[l]);
    check.floating("deltas", deltas[l]);
    const int64_t rows = images * anchors[l].size(0);
    if (logits[l].numel() != rows * classes)
      throw ShapeError(str("densePostProcess: logits of level ", l, " must hold ", images, " x ",
                           anchors[l].size(0), " x ", classes, " numbers, got ",
                           logits[l].shape()));
    if (deltas[l].numel() != rows * 4)
      throw ShapeError(str("densePostProcess: deltas of level ", l, " must hold ", images, " x ",
                           anchors[l].size(0), " x 4 numbers, got ", deltas[l].shape()));
  }
}

}  // namespace

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
  if (!(min_size >= 0) || !std::isfinite(min_size))
    throw ConfigError(str("test.minSize must be >= 0, got ", min_size));
}

std::vector<Detections> dense_post_process(const std::vector<Tensor>& logits,
                                           const std::vector<Tensor>& deltas,
                                           const std::vector<Tensor>& anchors,
                                           const std::vector<std::array<float, 2>>& sizes,
                                           int64_t classes, const DeltaCoder& coder,
                                           const DensePostProcessOptions& o) {
  const int64_t images = static_cast<int64_t>(sizes.size());
  const size_t levels = logits.size();
  check_arguments(logits, deltas, anchors, images, classes);
  // sigmoid(x) > thr is x > logit(thr): a first sieve without exponentials.
  const float sieve = o.score_thr <= 0   ? -INFINITY
                      : o.score_thr >= 1 ? INFINITY
                                         : std::log(o.score_thr / (1 - o.score_thr)) - 1e-3f;

  constexpr int64_t kPiece = 1 << 16;
  std::vector<Piece> pieces;
  for (int64_t n = 0; n < images; ++n)
    for (size_t l = 0; l < levels; ++l) {
      const int64_t count = anchors[l].size(0) * classes;
      for (int64_t begin = 0; begin < count; begin += kPiece)
        pieces.push_back({n, l, begin, std::min(count, begin + kPiece)});
    }
  std::vector<std::vector<Candidate>> found(pieces.size());
  parallel_for(static_cast<int64_t>(pieces.size()), int64_t{1}, [&](int64_t p) {
    const Piece& piece = pieces[p];
    const Tensor& x = logits[piece.level];
    dispatch_floating(x.dtype(), [&](auto tag) {
      const auto* own =
          x.data<decltype(tag)>() + piece.image * anchors[piece.level].size(0) * classes;
      found[p] = above(own, piece.begin, piece.end, sieve, o.score_thr);
    });
    keep_best(found[p], o.nms_pre);
  });

  std::vector<Detections> out(images);
  parallel_for(images, int64_t{1}, [&](int64_t n) {
    std::vector<Box> boxes;
    std::vector<float> scores;
    std::vector<int32_t> labels;
    size_t p = std::find_if(pieces.begin(), pieces.end(),
                            [&](const Piece& piece) { return piece.image == n; }) -
               pieces.begin();
    for (size_t level = 0; level < levels; ++level) {
      std::vector<Candidate> candidates;
      for (; p < pieces.size() && pieces[p].image == n && pieces[p].level == level; ++p)
        candidates.insert(candidates.end(), found[p].begin(), found[p].end());
      keep_best(candidates, o.nms_pre);
      std::sort(candidates.begin(), candidates.end(), better);
      const Box* anchor = reinterpret_cast<const Box*>(anchors[level].data<float>());
      dispatch_floating(deltas[level].dtype(), [&](auto tag) {
        const auto* d = deltas[level].data<decltype(tag)>() + n * 4 * anchors[level].size(0);
        for (const Candidate& c : candidates) {
          const int64_t at = c.index / classes;
          const Box box =
              clip_box(coder.decode(anchor[at], {float(d[4 * at]), float(d[4 * at + 1]),
                                                 float(d[4 * at + 2]), float(d[4 * at + 3])}),
                       sizes[n][0], sizes[n][1]);
          if (!(box.x2 - box.x1 > o.min_size && box.y2 - box.y1 > o.min_size)) continue;
          boxes.push_back(box);
          scores.push_back(c.score);
          labels.push_back(static_cast<int32_t>(c.index % classes));
        }
      });
    }
    Detections& mine = out[n];
    for (int32_t i : nms(boxes, scores, labels, o.nms_iou, o.max_per_image)) {
      mine.boxes.insert(mine.boxes.end(), {boxes[i].x1, boxes[i].y1, boxes[i].x2, boxes[i].y2});
      mine.scores.push_back(scores[i]);
      mine.labels.push_back(labels[i]);
    }
  });
  return out;
}

namespace {
// Inputs: logits, deltas, anchors of every level in turn; { classes, heights, widths, scoreThr,
// nmsPre, nmsIou, maxPerImage, minSize }. Outputs: boxes, scores, labels of every image in turn.
const bool registered =
    register_op("densePostProcess", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() % 3 != 0)
        throw ShapeError(str("densePostProcess: needs logits, deltas, anchors per level, got ",
                             in.size(), " tensors"));
      DensePostProcessOptions options;
      options.score_thr = static_cast<float>(o.number("scoreThr", options.score_thr));
      options.nms_pre = o.integer("nmsPre", options.nms_pre);
      options.nms_iou = static_cast<float>(o.number("nmsIou", options.nms_iou));
      options.max_per_image = o.integer("maxPerImage", options.max_per_image);
      options.min_size = static_cast<float>(o.number("minSize", 0));
      options.validate();
      const std::vector<double> heights = o.numbers("heights", {}),
                                widths = o.numbers("widths", {});
      if (heights.size() != widths.size())
        throw ShapeError(str("densePostProcess: widths must hold ", heights.size(),
                             " numbers (one an image), got ", widths.size()));
      std::vector<std::array<float, 2>> sizes;
      for (size_t i = 0; i < heights.size(); ++i)
        sizes.push_back({static_cast<float>(heights[i]), static_cast<float>(widths[i])});
      std::vector<Tensor> levels[3];
      for (size_t i = 0; i < in.size(); ++i) levels[i % 3].push_back(in[i]);
      std::vector<Tensor> out;
      for (const Detections& d : dense_post_process(levels[0], levels[1], levels[2], sizes,
                                                    o.integer("classes", 1), {}, options)) {
        const int64_t n = static_cast<int64_t>(d.scores.size());
        out.push_back(Tensor::from(d.boxes, {n, 4}));
        out.push_back(Tensor::from(d.scores, {n}));
        out.push_back(Tensor::from(d.labels, {n}));
      }
      return out;
    });
}  // namespace

}  // namespace mixpl
