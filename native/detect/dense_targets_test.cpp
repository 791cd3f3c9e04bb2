// What the assigners of dense heads and the ops around them do at the borders; meant for the
// sanitizers as much as for its expectations.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "detect/centernet_targets.h"
#include "detect/normalisers.h"
#include "detect/task_aligned_assigner.h"
#include "ops/concat_channels/concat_channels.h"
#include "ops/deform_sampling/deform_sampling.h"
#include "ops/gaussian_focal_loss/gaussian_focal_loss.h"
#include "ops/global_average_pool/global_average_pool.h"
#include "ops/layer_weighted_conv/layer_weighted_conv.h"
#include "ops/prob_focal_loss/prob_focal_loss.h"

namespace mixpl {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

Tensor boxes_of(const std::vector<float>& numbers) {
  return Tensor::from(numbers, {static_cast<int64_t>(numbers.size()) / 4, 4});
}

TEST(CenterNetTargets, StayInsideTheirMaps) {
  // Boxes beyond all borders, larger than the map, on its last cell, tiny, and far away.
  const Tensor boxes = boxes_of({-500, -500, -400, -400, -1e6, -1e6, 1e6,   1e6,   60,    44,   64,
                                 48,   0,    0,    0.1f, 0.1f, 3e8,  3e8,   4e8,   4e8,   -4,   -4,
                                 4,    4,    -9,   -9,   7,    7,    1e30f, 1e30f, 2e30f, 2e30f});
  const Tensor labels = Tensor::from(std::vector<int32_t>{0, 1, 0, 1, 0, 1, 0, 1}, {8});
  const std::vector<PointGrid> grids{
      {6, 8, 8, 8, 0.5, 8}, {3, 4, 16, 16, 0.5, 16}, {1, 1, 64, 64, 0.5, 64}, {0, 4, 128, 128}};
  CenterNetTargetOptions options;
  options.regress_from = {0, 0, 0, 0};
  options.regress_to = {1e9, 1e9, 1e9};
  for (const float sides : {0.0f, 3.0f, -2.0f, 1e30f, kInfinity, kNan}) {
    std::vector<Tensor> predicted;
    for (const PointGrid& grid : grids)
      predicted.push_back(Tensor::full({2, grid.height, grid.width, 4}, sides, DType::f32));
    const Truth truth = join_truth("test", {boxes, boxes_of({})},
                                   {labels, Tensor::from(std::vector<int32_t>{}, {0})}, {});
    const CenterNetTargets t = assign_centernet_targets(grids, predicted, truth, 2, options);
    for (size_t l = 0; l < grids.size(); ++l) {
      for (float heat : t.heat[l].to_vector<float>()) EXPECT_TRUE(heat >= 0 && heat <= 1);
      const std::vector<int32_t> pairs = t.class_positives[l].to_vector<int32_t>();
      for (size_t i = 0; i < pairs.size(); i += 2) {
        EXPECT_GE(pairs[i], 0);
        EXPECT_LT(pairs[i], grids[l].count());  // of the first image: the second has no boxes
      }
      const Tensor logits =
          Tensor::full({2, grids[l].height, grids[l].width, 2}, sides, DType::f32);
      gaussian_focal_loss(logits, t.heat[l], t.class_positives[l]);
    }
    EXPECT_GT(sum_of(t.positive, 0).item(), 0);
  }
}

TEST(TaskAlignedAssigner, TakesAnyPrediction) {
  const Tensor anchors = boxes_of({0, 0, 8, 8, 4, 4, 12, 12, -8, -8, 0, 0});
  const Tensor boxes = boxes_of({1, 1, 11, 11, -1e30f, -1e30f, 1e30f, 1e30f, 4, 4, 4.01f, 4.01f});
  const Tensor labels = Tensor::from(std::vector<int32_t>{0, 1, 1}, {3});
  const Truth truth = join_truth("test", {boxes}, {labels}, {});
  const Tensor valid = Tensor::from(std::vector<uint8_t>{1, 1, 0}, {1, 3});
  for (const float v : {0.0f, 5.0f, -5.0f, 1e30f, kInfinity, kNan}) {
    const Tensor predicted = boxes_of({v, 0, 9, 9, 3, v, 12, 12, 0, 0, v, v});
    const Tensor scores = Tensor::full({3, 2}, v, DType::f32);
    const std::vector<int32_t> assigned =
        assign_task_aligned({{scores}, {predicted}, {1}}, Anchors::join("test", {anchors}), truth,
                            valid, {})
            .assigned.to_vector<int32_t>();
    EXPECT_EQ(assigned[2], kIgnored);
    for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(assigned[i] >= -1 && assigned[i] < 3);
  }
  const TaskAlignment none =
      assign_task_aligned({{Tensor::zeros({0, 2}, DType::f32)}, {boxes_of({})}, {1}},
                          Anchors::join("test", {boxes_of({})}), truth, {}, {});
  EXPECT_EQ(none.assigned.numel(), 0);
}

TEST(DeformSampling, ReadsNothingOutside) {
  for (const float shift : {0.0f, 0.5f, -1.0f, -0.999f, 3.0f, 1e9f, -1e30f, kInfinity, kNan}) {
    const Tensor values = Tensor::full({2, 3, 4, 4}, 1, DType::f32);
    const Tensor offsets = Tensor::full({2, 3, 4, 8}, shift, DType::f32);
    for (float v : deform_sampling(values, offsets).to_vector<float>())
      EXPECT_TRUE(v >= 0 && v <= 1.0001f);
    Tensor dvalues = Tensor::zeros(values.shape(), DType::f32);
    Tensor doffsets = Tensor::empty_like(offsets);
    cpu::deform_sampling_backward(values, values, offsets, dvalues, doffsets);
  }
}

TEST(ChannelOps, TakeTheSmallestAndOddShapes) {
  const Tensor a = Tensor::full({1, 1, 3, 1}, 2, DType::bf16);
  const Tensor both = concat_channels({a, Tensor::empty({1, 1, 3, 0}, DType::bf16), a});
  EXPECT_EQ(both.shape(), (Shape{1, 1, 3, 2}));
  EXPECT_EQ(float(global_average_pool(both).data<bfloat16>()[1]), 2);
  const Tensor x = Tensor::full({2, 1, 3, 15}, 1, DType::f32);
  const Tensor y = layer_weighted_conv(x, Tensor::full({5, 1, 1, 15}, 1, DType::f32),
                                       Tensor::full({2, 1, 1, 3}, 0.5f, DType::f32));
  for (float v : y.to_vector<float>()) EXPECT_FLOAT_EQ(v, 7.5f);
}

TEST(ProbFocalLoss, TakesLabelsOfEveryKind) {
  const Tensor p = Tensor::from(std::vector<float>{0, 1, 0.5f, kNan, 0.2f, 0.9f}, {3, 2});
  const Tensor labels = Tensor::from(std::vector<int32_t>{0, -1, 2}, {3});
  EXPECT_TRUE(std::isfinite(prob_focal_loss(p, labels, 2).item()));
  const Tensor quality = Tensor::full({3}, 0.5f, DType::f32);
  EXPECT_TRUE(std::isfinite(prob_quality_focal_loss(p, labels, quality, 2).item()));
}

}  // namespace
}  // namespace mixpl
