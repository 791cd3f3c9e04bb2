// The targets of dense heads on a GPU are those of the CPU, choice by choice: ties, images without
// boxes and with more than a block holds, boxes smaller than a stride, invalid anchors.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "core/launch.h"
#include "core/part.h"
#include "core/philox.h"
#include "detect/atss_assigner.h"
#include "detect/box_targets.h"
#include "detect/centernet_targets.h"
#include "detect/dense_targets.h"
#include "detect/fcos_targets.h"
#include "detect/gfl_targets.h"
#include "detect/normalisers.h"
#include "detect/paa_assigner.h"
#include "detect/task_aligned_assigner.h"
#include "ops/gather_rows/gather_rows.h"

namespace mixpl {
namespace {

class Draw {
 public:
  explicit Draw(uint64_t seed) : random_{seed, 9} {}
  float operator()() { return random_.uniform(at_++); }
  int64_t below(int64_t n) { return std::min<int64_t>(n - 1, static_cast<int64_t>((*this)() * n)); }

 private:
  Philox random_;
  uint64_t at_ = 0;
};

// Corners on whole numbers: many exact ties.
Tensor draw_boxes(Draw& draw, int64_t count, int64_t width) {
  std::vector<float> v;
  for (int64_t i = 0; i < count; ++i) {
    const float x = static_cast<float>(draw.below(width)), y = static_cast<float>(draw.below(96));
    const int64_t most = draw() < 0.3f ? 4 : 60;
    v.insert(v.end(), {x, y, x + 1 + static_cast<float>(draw.below(most)),
                       y + 1 + static_cast<float>(draw.below(most))});
  }
  return Tensor::from(v, {count, 4});
}

// A batch on the host.
struct Scene {
  std::vector<Tensor> maps, boxes, labels;
  std::vector<std::array<float, 2>> pads;
  int64_t classes = 5;

  Scene(uint64_t seed, const std::vector<int64_t>& counts) : draw(seed) {
    const int64_t n = static_cast<int64_t>(counts.size());
    for (const auto& [h, w] : std::vector<std::array<int64_t, 2>>{{12, 17}, {6, 9}, {3, 5}, {1, 1}})
      maps.push_back(Tensor::empty({n, h, w, 1}, DType::f32));
    for (int64_t count : counts) {
      boxes.push_back(draw_boxes(draw, count, 136));
      std::vector<int32_t> own;
      for (int64_t i = 0; i < count; ++i) own.push_back(static_cast<int32_t>(draw.below(classes)));
      labels.push_back(Tensor::from(own, {count}));
      pads.push_back(
          {static_cast<float>(30 + draw.below(80)), static_cast<float>(draw.below(150))});
    }
  }
  // Numbers for every cell of a level.
  Tensor numbers(size_t level, int64_t columns, float low, float high) {
    std::vector<float> v(maps[level].numel() * columns);
    for (float& x : v) x = low + (high - low) * static_cast<float>(draw.below(64)) / 64;
    return Tensor::from(v,
                        {maps[level].size(0), maps[level].size(1), maps[level].size(2), columns});
  }
  Draw draw;
};

const std::vector<std::vector<int64_t>> kCounts{{0}, {1, 0, 3}, {7, 40}, {300, 2}, {0, 0}};

// What a device makes of a scene.
struct OnDevice {
  Anchors anchors;
  Truth truth;
  Tensor valid;

  OnDevice(const Scene& s, const AnchorOptions& options, Device device) {
    std::vector<Tensor> maps;
    for (const Tensor& map : s.maps) maps.push_back(Tensor::empty(map.shape(), DType::u8, device));
    anchors = AnchorGenerator(options).levels(maps);
    truth = join_truth("test", s.boxes, s.labels, device);
    valid = valid_anchors(options, maps, s.pads);
  }
};

AnchorOptions square_anchors() {
  AnchorOptions options;
  options.strides = {8, 16, 32, 128};
  options.ratios = {1};
  options.scales = {8};
  return options;
}

std::vector<Tensor> moved(const std::vector<Tensor>& tensors, Device device) {
  std::vector<Tensor> out;
  for (const Tensor& t : tensors) out.push_back(t.to(device));
  return out;
}

// Runs on the host and on the GPU; all tensors must be the same. f32 may differ by `tolerance`
// relative to 1: where a logarithm or a power is another library's.
using Run = std::function<std::vector<Tensor>(Device)>;
void expect_same(const char* what, const Run& run, float tolerance = 0) {
  const std::vector<Tensor> want = run(Device::cpu()), got = run(Device::cuda(0));
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_EQ(got[i].shape(), want[i].shape()) << what << ' ' << i;
    if (want[i].dtype() == DType::i32) {
      EXPECT_EQ(got[i].to_vector<int32_t>(), want[i].to_vector<int32_t>()) << what << ' ' << i;
    } else if (want[i].dtype() == DType::u8) {
      EXPECT_EQ(got[i].to_vector<uint8_t>(), want[i].to_vector<uint8_t>()) << what << ' ' << i;
    } else {
      const std::vector<float> a = got[i].to_vector<float>(), b = want[i].to_vector<float>();
      for (size_t k = 0; k < a.size(); ++k)
        ASSERT_TRUE(a[k] == b[k] ||
                    std::fabs(a[k] - b[k]) <= tolerance * std::fmax(1, std::fabs(b[k])) ||
                    (std::isnan(a[k]) && std::isnan(b[k])))
            << what << ' ' << i << " at " << k << ": " << a[k] << ", not " << b[k];
    }
  }
}

std::vector<Tensor> joined(std::initializer_list<std::vector<Tensor>> lists) {
  std::vector<Tensor> all;
  for (const std::vector<Tensor>& list : lists) all.insert(all.end(), list.begin(), list.end());
  return all;
}

class DenseCuda : public ::testing::Test {
 protected:
  void SetUp() override {
    try {
      Device::parse("cuda");
    } catch (const DeviceError& error) {
      GTEST_SKIP() << error.what();
    }
  }
  void each_scene(const std::function<void(Scene&)>& f) {
    for (size_t i = 0; i < kCounts.size(); ++i) {
      Scene scene(i, kCounts[i]);
      f(scene);
    }
  }
};

TEST_F(DenseCuda, AnchorsAndValid) {
  AnchorOptions options;
  options.strides = {8, 16, 32, 128};
  each_scene([&](Scene& s) {
    expect_same("anchors", [&](Device device) {
      const OnDevice on(s, options, device);
      return joined({{on.anchors.all, on.valid, on.truth.boxes, on.truth.labels, on.truth.first},
                     on.anchors.levels});
    });
  });
}

TEST_F(DenseCuda, MaxIou) {
  AnchorOptions anchors = square_anchors();
  anchors.ratios = {0.25, 1, 4};  // whole corners: ties
  std::vector<MaxIouOptions> options(4);
  options[1] = {0.7f, 0.3f, 0.3f};
  options[2].low_quality = LowQuality::restore_best;
  options[3].match_low_quality = false;
  each_scene([&](Scene& s) {
    for (const MaxIouOptions& o : options)
      expect_same("assigned", [&](Device device) {
        const OnDevice on(s, anchors, device);
        const int64_t n = on.truth.images(), count = on.anchors.pyramid.count();
        std::vector<Tensor> own;  // the anchors of each image
        Tensor each = Tensor::empty({n, count, 4}, DType::f32);
        for (int64_t i = 0; i < each.numel(); ++i)
          each.data<float>()[i] = static_cast<float>((i * 7919) % 60 + (i % 4 < 2 ? 0 : 60));
        return std::vector<Tensor>{assign_max_iou(on.anchors.all, on.truth, on.valid, o),
                                   assign_max_iou(on.anchors.all, on.truth, {}, o),
                                   assign_max_iou(each.to(device), on.truth, on.valid, o)};
      });
  });
}

TEST_F(DenseCuda, DenseTargets) {
  AnchorOptions anchors;
  anchors.strides = {8, 16, 32, 128};
  each_scene([&](Scene& s) {
    expect_same(
        "targets",
        [&](Device device) {
          const OnDevice on(s, anchors, device);
          const DeltaCoder coder;
          DenseTargets t =
              assign_dense_targets(on.anchors, on.truth, on.valid, s.classes, &coder, {});
          const Tensor factor = average_factor(t.positives), weights = weigh_images(t);
          return joined({t.labels, t.boxes, t.weights, {t.positives, factor, weights}});
        },
        1e-6f);
  });
}

TEST_F(DenseCuda, FcosTargets) {
  for (const bool torchvision : {false, true})
    each_scene([&](Scene& s) {
      FcosTargetOptions options;
      options.torchvision = torchvision;
      options.regress_bounds = {16, 32, 64};
      const double offset = torchvision ? 0 : 0.5;
      const std::vector<PointGrid> grids{{12, 17, 8, 8, offset, 8},
                                         {6, 9, 16, 16, offset, 16},
                                         {3, 5, 32, 32, offset, 32},
                                         {1, 1, 128, 128, offset, 128}};
      expect_same("targets", [&](Device device) {
        const FcosTargets t = assign_fcos_targets(
            grids, join_truth("test", s.boxes, s.labels, device), s.classes, options);
        return joined({t.labels,
                       t.sides,
                       t.centerness,
                       t.positive,
                       {sum_of(t.positive, 1), sum_of(t.centerness, 1e-6)}});
      });
    });
}

TEST_F(DenseCuda, Atss) {
  for (const int64_t top_k : {1, 9, 60, 5000})
    each_scene([&](Scene& s) {
      if (top_k != 9 && s.boxes[0].size(0) > 256) return;  // the emulation takes its time
      expect_same("targets", [&](Device device) {
        const OnDevice on(s, square_anchors(), device);
        const Tensor assigned = assign_atss(on.anchors, on.truth, on.valid, {top_k});
        const BoxTargets t =
            box_targets(on.anchors, on.truth, assigned, s.classes, {8, 16, 32, 128});
        return joined({{assigned, assign_atss(on.anchors, on.truth, {}, {top_k}), t.positives},
                       t.labels,
                       t.boxes,
                       t.positive,
                       anchor_centerness(on.anchors, on.truth, assigned)});
      });
    });
}

TEST_F(DenseCuda, OverlapsOfPositives) {
  Draw draw(3);
  const Tensor boxes = draw_boxes(draw, 300, 136), target = draw_boxes(draw, 300, 136);
  std::vector<float> positive;
  for (int i = 0; i < 300; ++i) positive.push_back(i % 3 == 0 ? 0.0f : 1.0f);
  for (const int64_t count : {300, 1, 0})
    expect_same("overlaps", [&](Device device) {
      const std::vector<float> some(positive.begin(), positive.begin() + count);
      return std::vector<Tensor>{
          overlaps_of(boxes.to(device), target.to(device), Tensor::from(some, {count}, device))};
    });
}

TEST_F(DenseCuda, TaskAligned) {
  for (const int64_t top : {1, 13, 4000})
    each_scene([&](Scene& s) {
      std::vector<Tensor> scores, predicted;
      for (size_t l = 0; l < s.maps.size(); ++l) {
        scores.push_back(s.numbers(l, s.classes, 0, 1));
        const Tensor size = s.numbers(l, 4, 0, 64 / static_cast<float>(8 << l));
        for (int64_t i = 0; i < size.numel(); ++i)
          if (i % 4 >= 2) size.data<float>()[i] += size.data<float>()[i - 2];
        predicted.push_back(size.alias({size.numel() / 4, 4}));
      }
      TaskAlignedOptions options;
      options.top = top;
      expect_same(
          "alignment",
          [&](Device device) {
            const OnDevice on(s, square_anchors(), device);
            const TaskAlignment a = assign_task_aligned(
                {moved(scores, device), moved(predicted, device), {8, 16, 32, 64}}, on.anchors,
                on.truth, on.valid, options);
            return joined({{a.assigned}, a.quality});
          },
          1e-5f);
    });
}

TEST_F(DenseCuda, CenterNet) {
  each_scene([&](Scene& s) {
    std::vector<PointGrid> grids;
    std::vector<Tensor> predicted;
    for (size_t l = 0; l < s.maps.size(); ++l) {
      const double stride = 8 << l;
      grids.push_back({s.maps[l].size(1), s.maps[l].size(2), stride, stride, 0.5, stride});
      predicted.push_back(s.numbers(l, 4, 0, 4));
    }
    CenterNetTargetOptions options;
    options.regress_from = {0, 16, 32, 64};
    options.regress_to = {20, 40, 80};
    for (const DType dtype : {DType::f32, DType::bf16})
      expect_same("targets", [&](Device device) {
        std::vector<Tensor> sides, pairs;
        for (const Tensor& t : predicted) sides.push_back(t.to(dtype).to(device));
        const CenterNetTargets t = assign_centernet_targets(
            grids, sides, join_truth("test", s.boxes, s.labels, device), s.classes, options);
        for (const Tensor& list : t.class_positives) {
          std::vector<int32_t> kept;
          const std::vector<int32_t> all = list.to_vector<int32_t>();
          for (size_t i = 0; i < all.size(); i += 2)
            if (all[i] >= 0) kept.insert(kept.end(), {all[i], all[i + 1]});
          pairs.push_back(Tensor::from(kept, {static_cast<int64_t>(kept.size())}));
        }
        return joined({t.heat, t.sides, t.positive, pairs, {t.num_class_positives}});
      });
  });
}

TEST_F(DenseCuda, Paa) {
  for (const int64_t top_k : {2, 9, 400})
    each_scene([&](Scene& s) {
      std::vector<Tensor> logits, deltas;
      for (size_t l = 0; l < s.maps.size(); ++l) {
        logits.push_back(s.numbers(l, s.classes, -4, 4));
        deltas.push_back(s.numbers(l, 4, -2, 2));
      }
      // Many equal losses, and such as are none.
      Tensor losses =
          Tensor::empty({static_cast<int64_t>(s.boxes.size()), 12 * 17 + 54 + 15 + 1}, DType::f32);
      for (int64_t i = 0; i < losses.numel(); ++i) {
        const int64_t kind = s.draw.below(12);
        losses.data<float>()[i] = kind == 0   ? NAN
                                  : kind == 1 ? INFINITY
                                              : static_cast<float>(s.draw.below(20)) / 8;
      }
      const MaxIouOptions first{.pos_iou = 0.1f, .neg_iou = 0.1f};
      PaaCostOptions options;
      options.coder.stds = {0.1f, 0.1f, 0.2f, 0.2f};
      expect_same(
          "costs",
          [&](Device device) {
            const OnDevice on(s, square_anchors(), device);
            const Tensor assigned = assign_max_iou(on.anchors.all, on.truth, on.valid, first);
            return std::vector<Tensor>{
                paa_costs(moved(logits, device), moved(deltas, device), on.anchors, on.truth,
                          assigned, s.classes, options),
                select_paa(on.anchors.pyramid, on.truth, assigned, losses.to(device), top_k)};
          },
          1e-5f);
    });
}

TEST_F(DenseCuda, Gfl) {
  each_scene([&](Scene& s) {
    const Tensor logits = s.numbers(0, s.classes, -4, 4);
    const OnDevice host(s, square_anchors(), {});
    const Tensor assigned = assign_atss(host.anchors, host.truth, host.valid, {});
    const BoxTargets t = box_targets(host.anchors, host.truth, assigned, s.classes);
    const int64_t count = t.positive[0].numel();
    for (const int64_t spare : {0, 5}) {
      const int64_t most = static_cast<int64_t>(sum_of({t.positive[0]}, 0).item()) + spare;
      expect_same("positives", [&](Device device) {
        const GflPositives p = gfl_positives(t.boxes[0].to(device), t.positive[0].to(device),
                                             host.anchors.levels[0].to(device), 8,
                                             logits.to(device), 17, std::min(most, count));
        const Tensor overlaps = overlaps_at(p.rows, p.sides, p.held, count);
        if (device.is_cpu()) {  // the lists of a GPU are as long as `most`
          const auto padded = [&](const Tensor& list, auto with) {
            using T = decltype(with);
            std::vector<T> v = list.to_vector<T>();
            v.resize(std::min(most, count) * (list.rank() == 2 ? 4 : 1), with);
            return Tensor::from(v, {static_cast<int64_t>(v.size())});
          };
          return std::vector<Tensor>{padded(p.rows, int32_t{-1}), padded(p.sides, 0.0f),
                                     padded(p.held, 0.0f), padded(p.weight, 0.0f), overlaps};
        }
        const auto flat = [](const Tensor& list) { return list.alias({list.numel()}); };
        return std::vector<Tensor>{p.rows, flat(p.sides), flat(p.held), p.weight, overlaps};
      });
    }
  });
}

TEST_F(DenseCuda, GatherRowsPassesOverWhatIsNone) {
  const Tensor rows = Tensor::from(std::vector<int32_t>{1, 4, -1, -1}, {4});
  std::vector<float> numbers(6 * 5);
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i);
  for (const int64_t columns : {5, 4})
    expect_same("rows", [&](Device device) {
      const Tensor x = Tensor::from(numbers, {30}).to(device).alias({30}),
                   own = part_of(x, 0, {6, columns}, DType::f32);
      const Tensor y = gather_rows(own, rows.to(device), columns);
      Tensor dx = Tensor::zeros({6, columns}, DType::f32, device);
      MIXPL_DISPATCH(device, gather_rows_backward, y, rows.to(device), dx);
      return std::vector<Tensor>{y, dx};
    });
  const std::vector<float> y =
      gather_rows(Tensor::from(numbers, {6, 5}), rows, 5).to_vector<float>();
  EXPECT_EQ(y,
            (std::vector<float>{5, 6, 7, 8, 9, 20, 21, 22, 23, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
}

}  // namespace
}  // namespace mixpl
