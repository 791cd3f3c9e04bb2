// Selection, suppression and post-processing on the device against the host's.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "core/philox.h"
#include "detect/anchors.h"
#include "detect/dense_post_process.h"
#include "detect/device_test.h"
#include "detect/nms.h"

namespace mixpl {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(),
                kInf = std::numeric_limits<float>::infinity();

struct Scored {
  std::vector<Box> boxes;
  std::vector<float> scores;
  std::vector<int32_t> labels;
};

Scored random_scored(int64_t count, uint64_t seed, float extent = 200) {
  const Philox random{seed, 1};
  Scored out;
  for (int64_t i = 0; i < count; ++i) {
    const float x = extent * random.uniform(6 * i), y = extent * random.uniform(6 * i + 1);
    out.boxes.push_back(
        {x, y, x + 2 + 50 * random.uniform(6 * i + 2), y + 2 + 50 * random.uniform(6 * i + 3)});
    out.scores.push_back(random.uniform(6 * i + 4));
    out.labels.push_back(static_cast<int32_t>(7 * random.uniform(6 * i + 5)) - 3);
  }
  return out;
}

void expect_same_nms(const Scored& in, bool classwise, float thr, int64_t most) {
  const int64_t n = static_cast<int64_t>(in.boxes.size());
  const Tensor boxes = tensor_of(in.boxes), scores = Tensor::from(in.scores, {n});
  const Tensor labels = classwise ? Tensor::from(in.labels, {n}) : Tensor();
  const Device gpu = test_gpu();
  const Tensor found =
      nms(boxes.to(gpu), scores.to(gpu), classwise ? labels.to(gpu) : Tensor(), thr, most);
  EXPECT_EQ(found.to_vector<int32_t>(), nms(boxes, scores, labels, thr, most).to_vector<int32_t>())
      << n << " boxes, threshold " << thr << ", at most " << most << ", classwise " << classwise;
}

TEST(CudaNms, AnyNumberOfBoxes) {
  MIXPL_NEEDS_GPU();
  for (int64_t count : {0, 1, 2, 63, 64, 65, 257, 512, 513, 1100}) {
    const Scored in = random_scored(count, 7);
    for (float thr : {0.0f, 0.5f, 1.0f}) expect_same_nms(in, false, thr, -1);
    if (count < 300) expect_same_nms(in, true, 0.3f, 20);  // a block a box
  }
  expect_same_nms(random_scored(70, 8), true, 0.5f, 0);
}

TEST(CudaNms, ThousandsOfBoxes) {
  MIXPL_NEEDS_GPU();
  const Scored in = random_scored(5000, 9, 3000);
  expect_same_nms(in, false, 0.5f, -1);
  expect_same_nms(in, false, 0.3f, 1000);
}

// Runs of 2048 are sorted, then merged: whole ones, one that is alone, one of a single box.
TEST(CudaNms, OrderAcrossRuns) {
  MIXPL_NEEDS_GPU();
  for (int64_t count : {2047, 2048, 2049, 4096, 4097, 6500}) {
    Scored in = random_scored(count, 17, 3000);
    expect_same_nms(in, false, 1, -1);
    for (float& s : in.scores) s = std::round(3 * s) / 3;
    expect_same_nms(in, false, 1, -1);  // by index, mostly
  }
}

TEST(CudaNms, TiesHostileNumbersAndTwins) {
  MIXPL_NEEDS_GPU();
  Scored in = random_scored(300, 11);
  for (size_t i = 0; i < in.scores.size(); ++i) in.scores[i] = std::round(4 * in.scores[i]) / 4;
  expect_same_nms(in, false, 0.4f, -1);  // a handful of different scores
  for (float& s : in.scores) s = 0.25f;
  expect_same_nms(in, true, 0.4f, 50);
  const float odd[] = {kNan, kInf, -kInf, 0.0f, -0.0f, 1e38f, -1e38f, 1e-45f};
  for (size_t i = 0; i < in.boxes.size(); i += 3) {
    (&in.boxes[i].x1)[i % 4] = odd[i % 8];
    in.scores[i] = odd[(i / 3) % 8];
    in.labels[i] =
        i % 2 ? std::numeric_limits<int32_t>::min() : std::numeric_limits<int32_t>::max();
  }
  expect_same_nms(in, false, 0.5f, -1);
  expect_same_nms(in, true, 0.5f, -1);
  for (Box& b : in.boxes) b = {1, 2, 30, 40};  // one is left
  expect_same_nms(in, false, 0.5f, -1);
  for (Box& b : in.boxes) b = {5, 5, 5, 5};  // none has an area
  expect_same_nms(in, false, 0.0f, 77);
}

// A pyramid of random outputs with `tie`: few different logits.
struct Outputs {
  std::vector<Tensor> logits, quality, deltas, anchors;
  int64_t classes, images;

  Outputs(int64_t classes, int64_t images, DType dtype, bool tie)
      : classes(classes), images(images) {
    const Philox random{13, 0};
    uint64_t drawn = 0;
    const AnchorOptions options;
    for (int level : {0, 1, 2}) {
      anchors.push_back(level_anchors(options, level, level == 2 ? 0 : 9 - 4 * level, 11));
      for (auto [list, width] :
           {std::pair{&logits, classes}, {&quality, int64_t{1}}, {&deltas, int64_t{4}}}) {
        Tensor t = Tensor::empty({images, anchors.back().size(0), width}, DType::f32);
        for (int64_t i = 0; i < t.numel(); ++i) {
          const float x = random.normal(drawn++);
          t.data<float>()[i] = tie && list == &logits ? std::round(x) : x;
        }
        list->push_back(t.to(dtype));
      }
    }
    if (dtype == DType::f32 && images > 0) {
      logits[0].data<float>()[5] = kNan;
      logits[1].data<float>()[6] = kInf;
      deltas[1].data<float>()[9] = kNan;
      quality[0].data<float>()[3] = kNan;
    }
  }
  std::vector<Detections> detect(Device device, const DensePostProcessOptions& o) const {
    std::vector<DenseLevel> levels;
    for (size_t l = 0; l < anchors.size(); ++l)
      levels.push_back({logits[l].to(device), quality[l].to(device),
                        delta_decoder(deltas[l].to(device), anchors[l].to(device), {}, images)});
    std::vector<float> sizes;
    for (int64_t n = 0; n < images; ++n) sizes.insert(sizes.end(), {100.0f - n, 60.0f + 9 * n});
    return dense_post_process(levels, Tensor::from(sizes, {images, 2}).to(device), classes, o)
        .get();
  }
};

TEST(CudaDensePostProcess, EveryRule) {
  MIXPL_NEEDS_GPU();
  for (bool tie : {false, true})
    for (ScoreRule rule : {ScoreRule::classes, ScoreRule::product, ScoreRule::geometric_mean,
                           ScoreRule::probabilities})
      for (bool per_anchor : {false, true})
        for (float thr : {0.0f, 0.3f}) {
          DensePostProcessOptions o;
          o.score_rule = rule;
          o.per_anchor = per_anchor;
          o.vote = per_anchor;
          o.score_thr = thr;
          o.nms_pre = per_anchor ? 23 : 150;
          o.max_per_image = 60;
          const Outputs out(5, 2, DType::f32, tie);
          SCOPED_TRACE(testing::Message() << "rule " << int(rule) << ", per anchor " << per_anchor
                                          << ", threshold " << thr << ", ties " << tie);
          expect_same(out.detect(test_gpu(), o), out.detect({}, o));
        }
}

TEST(CudaDensePostProcess, SizesAndTypes) {
  MIXPL_NEEDS_GPU();
  DensePostProcessOptions o;
  o.score_thr = 0.2f;
  for (int64_t images : {0, 1, 3})
    for (int64_t classes : {1, 5})
      for (DType dtype : {DType::f32, DType::bf16}) {
        const Outputs out(classes, images, dtype, false);
        for (int64_t most : {int64_t{1}, int64_t{1} << 40}) {
          o.nms_pre = most;
          o.max_per_image = most;
          expect_same(out.detect(test_gpu(), o), out.detect({}, o));
        }
      }
  o.score_thr = 1;  // nothing
  const Outputs out(3, 2, DType::f32, false);
  expect_same(out.detect(test_gpu(), o), out.detect({}, o));
}

// One level of boxes that do not move, with more pairs than a list of candidates holds; their
// number is odd, so that the second image starts anywhere.
struct LongLevel {
  static constexpr int64_t kClasses = 41, kImages = 2;
  Tensor anchors = level_anchors({}, 0, 13, 21);
  Tensor logits = Tensor::empty({kImages, anchors.size(0), kClasses}, DType::f32);
  Tensor quality = Tensor::empty({kImages, anchors.size(0), 1}, DType::f32);

  explicit LongLevel(const std::function<float(int64_t)>& logit_of) {
    for (int64_t i = 0; i < logits.numel(); ++i) logits.data<float>()[i] = logit_of(i);
    for (int64_t i = 0; i < quality.numel(); ++i)
      quality.data<float>()[i] = Philox{19, 0}.normal(i);
  }
  void expect_same_on_both(DType dtype, const DensePostProcessOptions& o) const {
    const Tensor deltas = Tensor::zeros({kImages, anchors.size(0), 4}, DType::f32);
    const Tensor sizes = Tensor::from<float>({104, 168, 104, 168}, {kImages, 2});
    const auto run = [&](Device d) {
      return dense_post_process({{logits.to(dtype).to(d), quality.to(dtype).to(d),
                                  delta_decoder(deltas.to(d), anchors.to(d), {}, kImages)}},
                                sizes.to(d), kClasses, o);
    };
    expect_same(run(test_gpu()), run({}));
  }
};

TEST(CudaDensePostProcess, MoreCandidatesThanTheListHolds) {
  MIXPL_NEEDS_GPU();
  const Philox random{14, 0};
  for (int steps : {3, 1 << 20}) {
    const LongLevel level([&](int64_t i) { return std::round(random.normal(i) * steps) / steps; });
    for (ScoreRule rule : {ScoreRule::classes, ScoreRule::product, ScoreRule::geometric_mean})
      for (DType dtype : {DType::f32, DType::bf16}) {
        SCOPED_TRACE(testing::Message()
                     << steps << " steps, rule " << int(rule) << ", " << name_of(dtype));
        DensePostProcessOptions o;
        o.score_rule = rule;
        o.score_thr = 0;
        o.nms_pre = 300;
        level.expect_same_on_both(dtype, o);
      }
  }
}

TEST(CudaDensePostProcess, ScoresAtTheEnds) {
  MIXPL_NEEDS_GPU();
  // Scores that round to 1, or have few digits left, or none; probabilities of either sign.
  const Philox random{20, 0};
  DensePostProcessOptions o;
  o.score_thr = 0;
  o.nms_pre = 300;
  for (float middle : {17.0f, -69.0f, -88.0f})
    LongLevel([&](int64_t i) {
      return middle + 2 * random.normal(i);
    }).expect_same_on_both(DType::f32, o);
  o.score_rule = ScoreRule::probabilities;
  o.score_thr = -4;
  LongLevel([&](int64_t i) { return random.normal(i) - 2; }).expect_same_on_both(DType::f32, o);
}

// The list's own best are all that are wanted: nothing else that begins as their scores do is.
TEST(CudaDensePostProcess, TheBestAreAmongTheFirst) {
  MIXPL_NEEDS_GPU();
  DensePostProcessOptions o;
  o.score_thr = 0;
  for (int64_t most : {1, 300}) {
    o.nms_pre = most;
    LongLevel([&](int64_t i) {
      return i % (13 * 21 * 9 * LongLevel::kClasses) < most ? -1 : -1.01f;
    }).expect_same_on_both(DType::f32, o);
  }
}

// Room for several runs, which only one of the images fills.
TEST(CudaDensePostProcess, ImagesOfUnequalCounts) {
  MIXPL_NEEDS_GPU();
  const Tensor anchors = level_anchors({}, 0, 10, 12);
  const int64_t count = anchors.size(0), classes = 6, images = 4;
  const int64_t passing[images] = {count * classes, 0, 2049, 1};
  Tensor logits = Tensor::empty({images, count, classes}, DType::f32);
  for (int64_t i = 0; i < logits.numel(); ++i) {
    const int64_t image = i / (count * classes), pair = i % (count * classes);
    logits.data<float>()[i] =
        pair < passing[image] ? std::round(8 * Philox{18, 0}.normal(i)) / 8 : -kInf;
  }
  const Tensor deltas = Tensor::zeros({images, count, 4}, DType::f32);
  DensePostProcessOptions o;
  o.score_thr = 0;
  o.nms_pre = count * classes;
  o.nms_iou = 0.9f;
  o.max_per_image = count * classes;
  const Tensor sizes = Tensor::from<float>({80, 96, 80, 96, 80, 96, 80, 96}, {images, 2});
  const auto run = [&](Device d) {
    return dense_post_process(
        {{logits.to(d), {}, delta_decoder(deltas.to(d), anchors.to(d), {}, images)}}, sizes.to(d),
        classes, o);
  };
  expect_same(run(test_gpu()), run({}));
}

TEST(CudaDensePostProcess, OtherDecoders) {
  MIXPL_NEEDS_GPU();
  const int64_t h = 6, w = 7, classes = 3, bins = 5;
  const auto numbers = [&](int64_t each, uint64_t stream) {
    Tensor t = Tensor::empty({2, h, w, each}, DType::f32);
    for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = 2 * Philox{15, stream}.uniform(i);
    return t;
  };
  AnchorOptions square;
  square.ratios = square.scales = {1};
  const Tensor logits = numbers(classes, 0), sides = numbers(4, 1),
               bin_logits = numbers(4 * bins, 2), anchors = level_anchors(square, 0, h, w),
               bin_values = Tensor::from<float>({0, 1, 2, 3, 4}, {bins}),
               sizes = Tensor::from<float>({50, 60, 40, 70}, {2, 2});
  DensePostProcessOptions o;
  o.min_size = -1;
  const auto run = [&](Device d, int kind) {
    const BoxDecoder boxes =
        kind == 0   ? side_decoder(sides.to(d), {h, w}, 2)
        : kind == 1 ? corner_decoder(sides.to(d), 8, 2)
                    : distribution_decoder(bin_logits.to(d), anchors.to(d), bin_values.to(d), 8, 2);
    return dense_post_process({{logits.to(d), {}, boxes}}, sizes.to(d), classes, o).get();
  };
  for (int kind : {0, 1, 2}) expect_same(run(test_gpu(), kind), run({}, kind));
}

}  // namespace
}  // namespace mixpl
