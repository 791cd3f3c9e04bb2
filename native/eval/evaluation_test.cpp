#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "core/error.h"
#include "eval/coco_evaluation.h"
#include "eval/voc_evaluation.h"

namespace mixpl::eval {
namespace {

CocoOptions coco_options() {
  CocoOptions options;
  for (int i = 0; i < 10; ++i) options.iou_thresholds.push_back(0.5 + 0.05 * i);
  for (int i = 0; i <= 100; ++i) options.recall_points.push_back(0.01 * i);
  options.area_ranges = {{0, 1e10}, {0, 1024}, {1024, 9216}};
  options.max_detections = {1, 3, 100};
  return options;
}

struct DataSet {
  GroundTruths gt;
  DetectedBoxes dt;
};

DataSet random_data(unsigned seed, int num_images, int num_classes, int boxes) {
  std::mt19937 rng(seed);
  const auto below = [&](int n) { return static_cast<int>(rng() % static_cast<unsigned>(n)); };
  DataSet data;
  for (int i = 0; i < boxes; ++i) {
    const double box[4] = {double(below(20)), double(below(20)), 1.0 + below(60), 1.0 + below(60)};
    data.gt.boxes.insert(data.gt.boxes.end(), box, box + 4);
    data.gt.images.push_back(below(num_images));
    data.gt.labels.push_back(below(num_classes));
    data.gt.areas.push_back(box[2] * box[3]);
    data.gt.ignore.push_back(below(5) == 0);
    data.gt.ids.push_back(below(20));
    for (int k = below(4); k > 0; --k) {
      for (const double v : box) data.dt.boxes.push_back(v + below(3) - 1);
      data.dt.images.push_back(data.gt.images.back());
      data.dt.labels.push_back(data.gt.labels.back());
      data.dt.scores.push_back(below(5) / 4.0);
    }
  }
  return data;
}

TEST(CocoEvaluation, TablesStayInBoundsAndRepeat) {
  for (unsigned seed = 0; seed < 50; ++seed) {
    const DataSet data = random_data(seed, 4, 3, 30);
    const CocoTables tables = evaluate_coco(4, 3, data.gt, data.dt, coco_options());
    ASSERT_EQ(tables.precision.size(), 10u * 101 * 3 * 3 * 3);
    ASSERT_EQ(tables.recall.size(), 10u * 3 * 3 * 3);
    for (const double p : tables.precision) EXPECT_TRUE(p == -1 || (p >= 0 && p <= 1)) << p;
    for (const double r : tables.recall) EXPECT_TRUE(r == -1 || (r >= 0 && r <= 1)) << r;
    const CocoTables again = evaluate_coco(4, 3, data.gt, data.dt, coco_options());
    EXPECT_EQ(tables.precision, again.precision);
    EXPECT_EQ(tables.scores, again.scores);
    EXPECT_EQ(tables.recall, again.recall);
  }
}

TEST(CocoEvaluation, CrowdAbsorbsAnyNumberOfDetections) {
  GroundTruths gt{{0, 0, 10, 10, 50, 50, 10, 10}, {0, 0}, {0, 0}, {100, 100}, {1, 0}, {1, 2}};
  DetectedBoxes dt{{1, 1, 5, 5, 2, 2, 5, 5, 50, 50, 10, 10}, {0.9, 0.8, 0.7}, {0, 0, 0}, {0, 0, 0}};
  const CocoTables tables = evaluate_coco(1, 1, gt, dt, coco_options());
  // Three detections are allowed; the two inside the crowd do not count, so precision stays 1.
  const int64_t areas = 3, limits = 3, all = 0, three = 1;
  for (int t = 0; t < 10; ++t) {
    EXPECT_EQ(tables.recall[(t * areas + all) * limits + three], 1);
    EXPECT_NEAR(tables.precision[(t * 101 * areas + all) * limits + three], 1, 1e-15);
  }
  EXPECT_EQ(tables.num_ground_truths[all], 1);
}

TEST(CocoEvaluation, SurvivesBoxesWhoseAreaOverflows) {
  GroundTruths gt{{0, 0, 1e200, 1e200, 0, 0, 5, 5}, {0, 0}, {0, 0}, {9, 25}, {0, 0}, {1, 2}};
  DetectedBoxes dt{{1, 0, 1e200, 1e200, 0, 0, 5, 5}, {0.9, 0.8}, {0, 0}, {0, 0}};
  const CocoTables tables = evaluate_coco(1, 1, gt, dt, coco_options());
  for (const double p : tables.precision) EXPECT_TRUE(p == -1 || (p >= 0 && p <= 1)) << p;
}

TEST(CocoEvaluation, RefusesWhatItCannotUse) {
  const DataSet good = random_data(1, 2, 2, 5);
  const auto run = [&](auto change, auto options) {
    DataSet data = good;
    change(data);
    evaluate_coco(2, 2, data.gt, data.dt, options);
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const CocoOptions options = coco_options();
  EXPECT_THROW(run([&](DataSet& d) { d.gt.boxes[3] = nan; }, options), RangeError);
  EXPECT_THROW(run([&](DataSet& d) { d.gt.areas[0] = INFINITY; }, options), RangeError);
  EXPECT_THROW(run([&](DataSet& d) { d.gt.labels[0] = 2; }, options), RangeError);
  EXPECT_THROW(run([&](DataSet& d) { d.gt.images[0] = -1; }, options), RangeError);
  EXPECT_THROW(run([&](DataSet& d) { d.gt.areas.clear(); }, options), ShapeError);
  EXPECT_THROW(run([&](DataSet& d) { d.gt.ids.pop_back(); }, options), ShapeError);
  EXPECT_THROW(run([&](DataSet& d) { d.dt.scores.push_back(1); }, options), ShapeError);
  CocoOptions falling = options;
  falling.max_detections = {100, 1};
  EXPECT_THROW(run([](DataSet&) {}, falling), RangeError);
  CocoOptions none = options;
  none.recall_points.clear();
  EXPECT_THROW(run([](DataSet&) {}, none), RangeError);
}

TEST(VocEvaluation, EmptySetsAndBounds) {
  const VocTables empty = evaluate_voc(0, 2, {}, {}, {});
  EXPECT_EQ(empty.average_precision, (std::vector<double>{-1, -1}));
  for (unsigned seed = 0; seed < 50; ++seed) {
    const DataSet data = random_data(seed, 3, 2, 20);
    for (const auto rule :
         {VocOptions::Interpolation::eleven_point, VocOptions::Interpolation::area})
      for (const double ap :
           evaluate_voc(3, 2, data.gt, data.dt, {{0.5}, rule, true}).average_precision)
        EXPECT_TRUE(ap == -1 || (ap >= 0 && ap <= 1 + 1e-12)) << ap;
  }
  EXPECT_THROW(evaluate_voc(1, 1, {}, {}, {{}, VocOptions::Interpolation::area, true}), RangeError);
}

}  // namespace
}  // namespace mixpl::eval
