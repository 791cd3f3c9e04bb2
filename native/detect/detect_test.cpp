// Sizes around block borders, hostile numbers and thread counts; the values themselves are held
// against oracles in test/unit/detect.
#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <limits>
#include <set>

#include "core/allocator.h"
#include "core/philox.h"
#include "detect/anchors.h"
#include "detect/box_iou.h"
#include "detect/dense_post_process.h"
#include "detect/dense_scores.h"
#include "detect/dense_targets.h"
#include "detect/nms.h"
#include "detect/normalisers.h"
#include "detect/score_order.h"

namespace mixpl {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(),
                kInf = std::numeric_limits<float>::infinity();

std::vector<Box> random_boxes(int64_t count, uint64_t seed, float extent = 200) {
  const Philox random{seed, 1};
  std::vector<Box> boxes;
  for (int64_t i = 0; i < count; ++i) {
    const float x = extent * random.uniform(4 * i), y = extent * random.uniform(4 * i + 1);
    boxes.push_back(
        {x, y, x + 2 + 50 * random.uniform(4 * i + 2), y + 2 + 50 * random.uniform(4 * i + 3)});
  }
  return boxes;
}

std::vector<float> random_scores(int64_t count, uint64_t seed) {
  const Philox random{seed, 2};
  std::vector<float> scores;
  for (int64_t i = 0; i < count; ++i) scores.push_back(random.uniform(i));
  return scores;
}

Tensor tensor_of(const std::vector<Box>& boxes) {
  Tensor t = Tensor::empty({static_cast<int64_t>(boxes.size()), 4}, DType::f32);
  if (!boxes.empty()) std::memcpy(t.raw(), boxes.data(), boxes.size() * sizeof(Box));
  return t;
}

// Per anchor the definition, with the IoU that the assigner uses.
std::vector<int32_t> assign_slowly(const std::vector<Box>& anchors, const std::vector<Box>& boxes,
                                   const MaxIouOptions& o) {
  std::vector<int32_t> out;
  std::vector<float> most(boxes.size(), 0.0f);
  for (const Box& a : anchors)
    for (size_t j = 0; j < boxes.size(); ++j) most[j] = std::max(most[j], box_iou(a, boxes[j]));
  for (const Box& a : anchors) {
    float best = -1;
    int32_t own = kNegative, tie = kNegative;
    for (size_t j = 0; j < boxes.size(); ++j) {
      const float iou = box_iou(a, boxes[j]);
      if (iou > best) {
        best = iou;
        own = static_cast<int32_t>(j);
      }
      if (iou == most[j]) tie = static_cast<int32_t>(j);
    }
    if (boxes.empty() || best < o.neg_iou)
      own = kNegative;
    else if (best < o.pos_iou)
      own = kIgnored;
    out.push_back(tie >= 0 ? tie : own);
  }
  return out;
}

TEST(MaxIouAssigner, AnyNumberOfAnchors) {
  for (int64_t count : {0, 1, 15, 16, 255, 256, 257, 511, 513, 1300})
    for (int64_t truth : {0, 1, 3, 40}) {
      const auto anchors = random_boxes(count, 3), boxes = random_boxes(truth, 4);
      EXPECT_EQ(assign_max_iou(tensor_of(anchors), tensor_of(boxes), {}, {}),
                assign_slowly(anchors, boxes, {}))
          << count << " anchors, " << truth << " boxes";
    }
}

TEST(MaxIouAssigner, SameForAnyNumberOfThreads) {
  const Tensor anchors = level_anchors({}, 0, 60, 70), boxes = tensor_of(random_boxes(80, 5, 480));
  const int saved = omp_get_max_threads();
  omp_set_num_threads(1);
  const Tensor sizes = Tensor::from<float>({100, 140, 136, 90}, {2, 2});
  const auto once = assign_max_iou(anchors, boxes, {}, {});
  for (int threads : {2, 3, 7}) {
    omp_set_num_threads(threads);
    EXPECT_EQ(assign_max_iou(anchors, boxes, {}, {}), once) << threads;
  }
  omp_set_num_threads(saved);
}

TEST(DenseTargets, InvalidAnchorsAreIgnored) {
  const AnchorOptions options;
  const std::vector<Tensor> maps{Tensor::empty({2, 5, 6, 1}, DType::f32),
                                 Tensor::empty({2, 3, 3, 1}, DType::f32)};
  const Anchors anchors = AnchorGenerator(options).levels(maps);
  const int64_t fine = anchors.levels[0].size(0), coarse = anchors.levels[1].size(0);
  EXPECT_FALSE(valid_anchors(options, maps, {{40, 48}, {40, 48}}).defined());
  const Tensor valid = valid_anchors(options, maps, {{20, 48}, {40, 48}});
  const Truth truth =
      join_truth("test", {tensor_of({{2, 3, 30, 35}}), tensor_of({})},
                 {Tensor::from<int32_t>({1}, {1}), Tensor::from<int32_t>({}, {0})}, {});
  const DenseTargets targets = assign_dense_targets(anchors, truth, valid, 2, nullptr, {});
  ASSERT_EQ(targets.labels.size(), 2u);
  const int32_t* label = targets.labels[0].data<int32_t>();
  int64_t positives = 0;
  for (int64_t i = 0; i < fine; ++i) {
    const int64_t row = i / (6 * options.per_cell());
    if (row >= 3) EXPECT_EQ(label[i], -1) << i;  // rows of cells from ceil(20 / 8) on
    EXPECT_EQ(label[fine + i], 2) << i;          // the second image has no boxes
    positives += label[i] == 1;
    if (label[i] != 1) continue;  // without a coder a target is the box itself
    const float* box = targets.boxes[0].data<float>() + 4 * i;
    EXPECT_EQ((std::vector<float>{box[0], box[1], box[2], box[3]}),
              (std::vector<float>{2, 3, 30, 35}));
  }
  for (int64_t i = 0; i < coarse; ++i) positives += targets.labels[1].data<int32_t>()[i] == 1;
  EXPECT_GT(positives, 0);
  EXPECT_EQ(targets.positives.to_vector<float>(),
            (std::vector<float>{static_cast<float>(positives), 0}));
  EXPECT_EQ(average_factor(targets.positives).item(), static_cast<float>(positives + 1));
}

// Suppresses one by one.
std::vector<int32_t> nms_slowly(const std::vector<Box>& boxes, const std::vector<float>& scores,
                                float thr) {
  std::vector<int32_t> order(boxes.size()), kept;
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  for (int32_t i : order)
    if (std::none_of(kept.begin(), kept.end(),
                     [&](int32_t k) { return box_iou(boxes[k], boxes[i]) > thr; }))
      kept.push_back(i);
  return kept;
}

TEST(Nms, AnyNumberOfBoxes) {
  for (int64_t count : {0, 1, 2, 63, 64, 65, 511, 512, 513, 1100})
    for (float thr : {0.0f, 0.3f, 0.5f, 1.0f}) {
      const auto boxes = random_boxes(count, 7);
      const auto scores = random_scores(count, 8);
      EXPECT_EQ(nms(boxes, scores, {}, thr), nms_slowly(boxes, scores, thr))
          << count << " boxes, threshold " << thr;
    }
}

TEST(Nms, ThreadsShareLargeClasses) {
  // Enough kept boxes in one class that its windows are compared by all threads.
  const int64_t count = 9000;
  const auto boxes = random_boxes(count, 9, 4000);
  const auto scores = random_scores(count, 10);
  std::vector<int32_t> labels(count);
  for (int64_t i = 0; i < count; ++i) labels[i] = i % 9 == 0 ? static_cast<int32_t>(i % 5) : -7;
  const int saved = omp_get_max_threads();
  omp_set_num_threads(1);
  const auto single = nms(boxes, scores, {}, 0.5f), classwise = nms(boxes, scores, labels, 0.5f);
  EXPECT_GT(single.size(), 4200u);
  for (int threads : {2, 3}) {
    omp_set_num_threads(threads);
    EXPECT_EQ(nms(boxes, scores, {}, 0.5f), single);
    EXPECT_EQ(nms(boxes, scores, labels, 0.5f), classwise);
    const auto best = nms(boxes, scores, labels, 0.5f, 1000);
    EXPECT_TRUE(std::equal(best.begin(), best.end(), classwise.begin()));
    EXPECT_EQ(best.size(), 1000u);
  }
  omp_set_num_threads(saved);
}

TEST(Nms, HostileNumbers) {
  auto boxes = random_boxes(300, 11);
  auto scores = random_scores(300, 12);
  const float odd[] = {kNan, kInf, -kInf, 0.0f, -0.0f, 1e38f, -1e38f, 1e-45f};
  for (size_t i = 0; i < boxes.size(); i += 3) {
    (&boxes[i].x1)[i % 4] = odd[i % 8];
    scores[i] = odd[(i / 3) % 8];
  }
  std::vector<int32_t> labels;
  for (size_t i = 0; i < boxes.size(); ++i)
    labels.push_back(i % 2 ? std::numeric_limits<int32_t>::min()
                           : std::numeric_limits<int32_t>::max());
  const auto kept = nms(boxes, scores, labels, 0.5f);
  EXPECT_EQ(std::set<int32_t>(kept.begin(), kept.end()).size(), kept.size());
  bool nan_seen = false;
  for (int32_t i : kept) {
    EXPECT_TRUE(i >= 0 && i < 300);
    nan_seen |= std::isnan(scores[i]);
    EXPECT_TRUE(!nan_seen || std::isnan(scores[i])) << "a number came after NaN";
  }
  EXPECT_TRUE(nan_seen);
}

// All finite numbers of bf16, and what lies between them where scores round to 1.
std::vector<float> many_logits() {
  std::vector<float> out;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float x = std::bit_cast<float>(bits << 16);
    if (std::isfinite(x)) out.push_back(x);
  }
  for (int i = -1200; i < 400; ++i) out.push_back(0.083f * i);
  return out;
}

TEST(ScoreOrder, KeysGiveTheirNumbersBack) {
  for (float x : many_logits()) EXPECT_EQ(number_of_key(descending_key(x)), x);
  EXPECT_EQ(number_of_key(descending_key(kInf)), kInf);
  EXPECT_EQ(number_of_key(descending_key(-kInf)), -kInf);
  EXPECT_EQ(number_of_key(descending_key(kNan)), -kInf);
  EXPECT_EQ(number_of_key(0), kInf);
}

TEST(DenseScores, LogitsOfASpanOfScores) {
  const float quality[] = {kInf, 3, -5, -40};
  for (ScoreRule rule : {ScoreRule::classes, ScoreRule::product, ScoreRule::geometric_mean,
                         ScoreRule::probabilities})
    for (int64_t q = 0; q < 4; ++q) {
      const DenseScores scores{{}, {quality}, 4, 1, rule, 0, -kInf};
      for (float x : many_logits()) {
        const float score = scores.deciding(x, 0, q);
        const Span span = scores.logits_of({score, score});
        EXPECT_TRUE(span.has(x)) << x << " is not in " << span.least << " to " << span.most;
        if (rule == ScoreRule::classes && std::abs(x) < 6)
          EXPECT_LT(span.most - span.least, 0.02f) << x;
      }
      EXPECT_TRUE(scores.logits_of({-kInf, kInf}).is_all());
    }
}

TEST(DenseScores, NoLogitWhoseScorePassesIsSievedOut) {
  const float quality[] = {kInf};
  for (ScoreRule rule : {ScoreRule::classes, ScoreRule::geometric_mean, ScoreRule::probabilities})
    for (float threshold : {0.0f, 1e-35f, 1e-8f, 0.05f, 0.999f, 0.99999f, 0.9999999f, 1.0f}) {
      const float sieve = DenseScores::sieve_of(rule, threshold);
      const DenseScores scores{{}, {quality}, 1, 1, rule, threshold, sieve};
      for (float x : many_logits())
        if (scores.deciding(x, 0, 0) > threshold) EXPECT_GT(x, sieve) << threshold;
    }
}

TEST(DensePostProcess, EverythingAboveTheThreshold) {
  // A score threshold of 0 makes every pair a candidate; pieces and levels end unevenly.
  const AnchorOptions options;
  std::vector<Tensor> logits, deltas, anchors;
  const int64_t classes = 37, images = 2;
  const Philox random{13, 0};
  uint64_t drawn = 0;
  for (int level : {0, 1}) {
    anchors.push_back(level_anchors(options, level, 17 - 7 * level, 19));
    for (auto [list, width] : {std::pair{&logits, classes}, std::pair{&deltas, int64_t{4}}}) {
      Tensor t = Tensor::empty({images, anchors.back().size(0), width}, DType::f32);
      for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = random.normal(drawn++);
      list->push_back(t);
    }
  }
  logits[0].data<float>()[5] = kNan;
  logits[1].data<float>()[6] = kInf;
  deltas[1].data<float>()[9] = kNan;
  DensePostProcessOptions o;
  o.score_thr = 0;
  o.nms_pre = 500;
  std::vector<DenseLevel> levels;
  for (size_t l = 0; l < anchors.size(); ++l)
    levels.push_back({logits[l], {}, delta_decoder(deltas[l], anchors[l], {}, images)});
  const Tensor sizes = Tensor::from<float>({100, 140, 136, 90}, {2, 2});
  const auto once = dense_post_process(levels, sizes, classes, o).get();
  ASSERT_EQ(once.size(), 2u);
  for (size_t n = 0; n < 2; ++n) {
    const Detections& found = once[n];
    EXPECT_EQ(found.scores.size(), 100u);
    ASSERT_EQ(found.boxes.size(), 4 * found.scores.size());
    for (size_t i = 0; i < found.scores.size(); ++i) {
      EXPECT_TRUE(i == 0 || found.scores[i] <= found.scores[i - 1]);
      EXPECT_TRUE(found.labels[i] >= 0 && found.labels[i] < classes);
      const float* b = &found.boxes[4 * i];
      EXPECT_TRUE(b[0] >= 0 && b[1] >= 0 && b[2] <= (n ? 90 : 140) && b[3] <= (n ? 136 : 100));
      EXPECT_TRUE(b[2] > b[0] && b[3] > b[1]);
    }
  }
}

// The pairs that stay when nothing is suppressed: label, score, one after the other.
std::vector<float> best_slowly(const Tensor& logits, const Tensor& quality, int64_t image,
                               const DensePostProcessOptions& o) {
  struct Pair {
    float score;
    int64_t index;
  };
  const int64_t anchors = logits.size(1), classes = logits.size(2);
  std::vector<Pair> pairs;
  for (int64_t i = 0; i < anchors * classes; ++i) {
    float score = DenseScores::sigmoid(logits.data<float>()[image * anchors * classes + i]);
    if (quality.defined())
      score = std::sqrt(score *
                        DenseScores::sigmoid(quality.data<float>()[image * anchors + i / classes]));
    if (score > o.score_thr) pairs.push_back({score, i});
  }
  std::stable_sort(pairs.begin(), pairs.end(),
                   [](const Pair& a, const Pair& b) { return a.score > b.score; });
  std::vector<float> out;
  for (int64_t i = 0; i < std::min<int64_t>(o.nms_pre, std::ssize(pairs)); ++i)
    out.insert(out.end(), {static_cast<float>(pairs[i].index % classes), pairs[i].score});
  return out;
}

TEST(DensePostProcess, TheBestOfManyPairsWithEqualScores) {
  // More pairs than a piece has; scores repeat, and rise towards the end.
  const AnchorOptions options;
  const int64_t classes = 37, images = 2;
  const Tensor anchors = level_anchors(options, 0, 41, 43);
  const int64_t count = anchors.size(0);
  const Philox random{14, 0};
  Tensor logits = Tensor::empty({images, count, classes}, DType::f32);
  for (int64_t i = 0; i < logits.numel(); ++i)
    logits.data<float>()[i] = std::round(4 * random.normal(i) + 3.0f * i / logits.numel()) / 4;
  Tensor quality = Tensor::empty({images, count, 1}, DType::f32);
  for (int64_t i = 0; i < quality.numel(); ++i)
    quality.data<float>()[i] = std::round(random.normal(logits.numel() + i));
  const Tensor deltas = Tensor::zeros({images, count, 4}, DType::f32);
  const Tensor sizes = Tensor::from<float>({400, 400, 400, 400}, {2, 2});
  for (const Tensor& centerness : {Tensor(), quality})
    for (int64_t most : {int64_t{1}, int64_t{3}, int64_t{1000}, int64_t{100000}})
      for (float threshold : {0.0f, 0.9f}) {
        DensePostProcessOptions o;
        if (centerness.defined()) o.score_rule = ScoreRule::geometric_mean;
        o.score_thr = threshold;
        o.nms_pre = most;
        o.nms_iou = 1;
        o.max_per_image = 2 * most;
        o.min_size = -1;
        const auto found =
            dense_post_process({{logits, centerness, delta_decoder(deltas, anchors, {}, images)}},
                               sizes, classes, o)
                .get();
        for (int64_t n = 0; n < images; ++n) {
          std::vector<float> got;
          for (size_t i = 0; i < found[n].scores.size(); ++i)
            got.insert(got.end(), {static_cast<float>(found[n].labels[i]), found[n].scores[i]});
          EXPECT_EQ(got, best_slowly(logits, centerness, n, o)) << most << " of " << threshold;
        }
      }
}

TEST(Anchors, OfSomeSizesAreKept) {
  AnchorGenerator generator({});
  const auto live = [] { return memory_stats(Device()).live_bytes; };
  const int64_t before = live();
  const Tensor first = generator.level(0, 100, 100);
  EXPECT_EQ(generator.level(0, 100, 100).raw(), first.raw());
  for (int64_t height = 101; height < 200; ++height) generator.level(0, height, 100);
  EXPECT_LT(live() - before, 40 << 20);
  const Tensor again = generator.level(0, 100, 100);  // not the same ones by now
  EXPECT_NE(again.raw(), first.raw());
  EXPECT_EQ(again.to_vector<float>(), first.to_vector<float>());
}

TEST(Checks, SayWhatTheyWanted) {
  const Tensor boxes = tensor_of(random_boxes(3, 1));
  EXPECT_THROW(pairwise_iou(boxes, boxes.alias({12})), ShapeError);
  EXPECT_THROW(pairwise_iou(boxes, Tensor()), ShapeError);
  EXPECT_THROW(assign_max_iou(boxes, boxes, {1, 1}, {}), ShapeError);
  EXPECT_THROW(encode_boxes(boxes, boxes.to(DType::bf16), {}), DTypeError);
  EXPECT_THROW(dense_post_process({{boxes, {}, corner_decoder(boxes, 1, 1)}},
                                  Tensor::from<float>({9, 9}, {1, 2}), 1, {}),
               ShapeError);
  EXPECT_THROW(delta_decoder(boxes, boxes, {}, 2), ShapeError);
  AnchorOptions options;
  options.sizes = {{32}, {64}};
  EXPECT_THROW(AnchorGenerator{options}, ConfigError);
}

}  // namespace
}  // namespace mixpl
