// Hostile numbers, empty and lopsided inputs, thread counts; the values themselves are held against
// oracles and scikit-learn in test/unit/detect/paa.test.ts.
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/philox.h"
#include "detect/max_iou_assigner.h"
#include "detect/paa_assigner.h"
#include "detect/score_voting.h"

namespace mixpl {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(),
                kInf = std::numeric_limits<float>::infinity();

// Of one image.
std::vector<int32_t> select_paa(const std::vector<int64_t>& sizes,
                                const std::vector<int32_t>& assigned,
                                const std::vector<float>& losses, int64_t boxes, int64_t top_k) {
  const int64_t count = static_cast<int64_t>(assigned.size());
  const Truth truth = join_unlabelled("test", Tensor::zeros({boxes, 4}, DType::f32));
  return select_paa(Pyramid(sizes), truth, Tensor::from(assigned, {1, count}),
                    Tensor::from(losses, {1, count}), top_k)
      .to_vector<int32_t>();
}

TEST(SelectPaa, TakesNothingFromNothing) {
  EXPECT_TRUE(select_paa({}, {}, {}, 0, 9).empty());
  EXPECT_TRUE(select_paa({0, 0}, {}, {}, 500, 9).empty());
  EXPECT_EQ(select_paa({2}, {kIgnored, kNegative}, {kNan, kNan}, 3, 9),
            (std::vector<int32_t>{kIgnored, kNegative}));
}

TEST(SelectPaa, KeepsAPrefixByLossWhateverTheLosses) {
  const Philox random{5, 1};
  for (int64_t trial = 0; trial < 200; ++trial) {
    const int64_t boxes = 1 + trial % 7, count = 1 + trial;
    std::vector<int32_t> assigned(count);
    std::vector<float> losses(count);
    for (int64_t i = 0; i < count; ++i) {
      const uint64_t at = static_cast<uint64_t>(1000 * trial + 4 * i);
      assigned[i] = static_cast<int32_t>(random.uniform(at) * static_cast<float>(boxes + 2)) - 2;
      const float u = random.uniform(at + 1), v = random.uniform(at + 2);
      // Huge, tiny, equal, infinite and no numbers among ordinary ones.
      losses[i] = u < 0.05f   ? kNan
                  : u < 0.1f  ? kInf
                  : u < 0.15f ? 3e38f
                  : u < 0.2f  ? 1e-38f
                  : u < 0.4f  ? 1.0f
                              : 4 * v;
    }
    omp_set_num_threads(1);
    const std::vector<int32_t> kept =
        select_paa({count / 2, count - count / 2}, assigned, losses, boxes, 1 + trial % 12);
    omp_set_num_threads(3);
    EXPECT_EQ(select_paa({count / 2, count - count / 2}, assigned, losses, boxes, 1 + trial % 12),
              kept);
    for (int64_t i = 0; i < count; ++i) {
      if (assigned[i] < 0)
        EXPECT_EQ(kept[i], assigned[i]);
      else
        EXPECT_TRUE(kept[i] == assigned[i] || kept[i] == kNegative);
      if (!std::isfinite(losses[i]) && assigned[i] >= 0) EXPECT_EQ(kept[i], kNegative);
    }
  }
  omp_set_num_threads(1);
}

TEST(BetterPart, IsAPrefixOfOneComponent) {
  const Philox random{6, 1};
  for (int64_t trial = 0; trial < 300; ++trial) {
    std::vector<double> losses(2 + trial % 44);
    for (size_t i = 0; i < losses.size(); ++i)
      losses[i] = std::pow(10.0, trial % 9 - 4) *
                  static_cast<double>(random.uniform(static_cast<uint64_t>(100 * trial) + i));
    std::sort(losses.begin(), losses.end());
    const std::vector<int32_t> part = better_part(losses);
    EXPECT_LE(part.size(), losses.size());
    for (size_t i = 1; i < part.size(); ++i) EXPECT_LT(part[i - 1], part[i]);
  }
}

TEST(VoteBoxes, ABoxAloneStaysAndHostileOnesAreLeftOut) {
  const Box own{3, 4, 20, 30};
  const auto same = [](const Box& a, const Box& b) {
    EXPECT_EQ(a.x1, b.x1);
    EXPECT_EQ(a.y1, b.y1);
    EXPECT_EQ(a.x2, b.x2);
    EXPECT_EQ(a.y2, b.y2);
  };
  EXPECT_TRUE(vote_boxes({}, {}, {}, {}).empty());
  same(vote_boxes({own}, {0.5f}, {1}, {0})[0], own);
  // Another class, far away, without an area, of NaN.
  const std::vector<Box> boxes{own, own, {100, 100, 120, 130}, {5, 5, 5, 9}, {kNan, 4, 20, 30}};
  same(vote_boxes(boxes, {0.5f, 0.4f, 0.4f, 0.4f, 0.4f}, {1, 2, 1, 1, 1}, {0})[0], own);
  same(vote_boxes({{5, 5, 5, 9}}, {0.5f}, {0}, {0})[0], {5, 5, 5, 9});
}

}  // namespace
}  // namespace mixpl
