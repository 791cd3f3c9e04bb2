// Proposals, samples, refinement and detections of regions on the device against the host's, and
// losses over padded rows against those over the compact ones.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/philox.h"
#include "detect/device_test.h"
#include "detect/proposals.h"
#include "detect/region_detections.h"
#include "detect/sampled_targets.h"
#include "ops/l1_loss/l1_loss.h"
#include "ops/softmax_cross_entropy/softmax_cross_entropy.h"

namespace mixpl {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Tensor random_tensor(const Shape& shape, uint64_t stream, float scale = 1) {
  Tensor t = Tensor::empty(shape, DType::f32);
  const Philox random{21, stream};
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = scale * random.normal(i);
  return t;
}

std::vector<Box> random_boxes(int64_t count, uint64_t stream) {
  const Philox random{22, stream};
  std::vector<Box> boxes;
  for (int64_t i = 0; i < count; ++i) {
    const float x = 60 * random.uniform(4 * i), y = 60 * random.uniform(4 * i + 1);
    boxes.push_back(
        {x, y, x + 1 + 40 * random.uniform(4 * i + 2), y + 1 + 40 * random.uniform(4 * i + 3)});
  }
  return boxes;
}

Tensor sizes_for(int64_t images) {
  std::vector<float> sizes;
  for (int64_t n = 0; n < images; ++n) sizes.insert(sizes.end(), {90.0f - n, 80.0f + n});
  return Tensor::from(sizes, {images, 2});
}

// So many regions of each image, as the host holds them and as a device does.
Regions compact_regions(const std::vector<int64_t>& counts) {
  std::vector<Box> boxes;
  std::vector<int32_t> image, per_image;
  for (size_t n = 0; n < counts.size(); ++n) {
    for (const Box& b : random_boxes(counts[n], n)) boxes.push_back(b);
    image.insert(image.end(), counts[n], static_cast<int32_t>(n));
    per_image.push_back(static_cast<int32_t>(counts[n]));
  }
  const int64_t rows = static_cast<int64_t>(boxes.size());
  return {tensor_of(boxes), Tensor::from(image, {rows}),
          Tensor::from(per_image, {static_cast<int64_t>(counts.size())})};
}

// Rows of `compact`, one a region, moved to their places; `fill` elsewhere.
Tensor spread(const Tensor& compact, const Tensor& counts, int64_t places, float fill) {
  const int64_t images = counts.size(0),
                each = compact.numel() / std::max<int64_t>(compact.size(0), 1);
  Tensor out = Tensor::full({images * places, each}, fill, compact.dtype());
  const int64_t bytes = each * size_of(compact.dtype());
  int64_t row = 0;
  for (int64_t n = 0; n < images; ++n)
    for (int32_t k = 0; k < counts.data<int32_t>()[n]; ++k, ++row)
      std::memcpy(static_cast<char*>(out.raw()) + (n * places + k) * bytes,
                  static_cast<const char*>(compact.raw()) + row * bytes, bytes);
  return out;
}
// And back.
Tensor gathered(const Tensor& padded, const std::vector<int32_t>& counts) {
  const Tensor host = padded.to(Device());
  const int64_t places = host.size(0) / static_cast<int64_t>(counts.size());
  const int64_t each = host.numel() / std::max<int64_t>(host.size(0), 1);
  int64_t rows = 0;
  for (int32_t c : counts) rows += c;
  Tensor out = Tensor::empty({rows, each}, host.dtype());
  const int64_t bytes = each * size_of(host.dtype());
  int64_t row = 0;
  for (size_t n = 0; n < counts.size(); ++n)
    for (int32_t k = 0; k < counts[n]; ++k, ++row)
      std::memcpy(static_cast<char*>(out.raw()) + row * bytes,
                  static_cast<const char*>(host.raw()) + (n * places + k) * bytes, bytes);
  return out;
}

Regions on_gpu(const Regions& r, int64_t places) {
  const Device gpu = test_gpu();
  return {spread(r.boxes, r.counts, places, 0).to(gpu),
          spread(r.image, r.counts, places, -1).alias({r.images() * places}).to(gpu),
          r.counts.to(gpu)};
}

void expect_same(const Regions& found, const Regions& wanted) {
  const std::vector<int32_t> counts = found.counts.to_vector<int32_t>();
  ASSERT_EQ(counts, wanted.counts.to_vector<int32_t>());
  if (counts.empty()) return;
  expect_near(gathered(found.boxes, counts).to_vector<float>(), wanted.boxes.to_vector<float>());
  EXPECT_EQ(gathered(found.image, counts).to_vector<int32_t>(), wanted.image.to_vector<int32_t>());
  int64_t filled = 0;
  for (int32_t n : found.image.to_vector<int32_t>()) filled += n >= 0;
  EXPECT_EQ(filled, wanted.size());
}

TEST(CudaProposals, AsOnTheHost) {
  MIXPL_NEEDS_GPU();
  AnchorOptions anchor_options;
  anchor_options.strides = {8, 16, 32};
  anchor_options.scales = {4};
  for (int64_t images : {0, 1, 3})
    for (bool tie : {false, true})
      for (int64_t most : {int64_t{7}, int64_t{200}, int64_t{1} << 40}) {
        std::vector<Tensor> logits, deltas, anchors;
        for (int l = 0; l < 3; ++l) {
          anchors.push_back(level_anchors(anchor_options, l, 12 >> l, 10 >> l));
          const int64_t count = anchors.back().size(0);
          logits.push_back(random_tensor({images, count}, 3 * l));
          deltas.push_back(random_tensor({images, count, 4}, 3 * l + 1, 0.3f));
          for (int64_t i = 0; i < logits[l].numel(); ++i) {
            float& x = logits[l].data<float>()[i];
            x = tie ? std::round(x) : 30 * x;  // large ones have the same score
            if (i % 50 == 3) x = kNan;
          }
        }
        ProposalOptions o;
        o.nms_pre = most;
        o.max_per_image = most;
        o.min_size = 3;
        const auto run = [&](Device d) {
          std::vector<ProposalLevel> levels;
          for (int l = 0; l < 3; ++l)
            levels.push_back(
                {logits[l].to(d), delta_decoder(deltas[l].to(d), anchors[l].to(d), {}, images)});
          return propose_regions(levels, sizes_for(images).to(d), o);
        };
        SCOPED_TRACE(testing::Message() << images << " images, ties " << tie << ", most " << most);
        expect_same(run(test_gpu()), run({}));
      }
}

Truth random_truth(const std::vector<int64_t>& counts, Device device) {
  std::vector<Tensor> boxes, labels;
  for (size_t n = 0; n < counts.size(); ++n) {
    boxes.push_back(tensor_of(random_boxes(counts[n], 50 + n)));
    std::vector<int32_t> own;
    for (int64_t g = 0; g < counts[n]; ++g) own.push_back(static_cast<int32_t>(g % 3));
    labels.push_back(Tensor::from(own, {counts[n]}));
  }
  return join_truth("test", boxes, labels, device);
}

MaxIouOptions region_assignment() {
  MaxIouOptions o;
  o.pos_iou = o.neg_iou = 0.3f;
  o.match_low_quality = false;
  return o;
}

TEST(CudaRegionTargets, AsOnTheHost) {
  MIXPL_NEEDS_GPU();
  const std::vector<int64_t> truth{3, 0, 5, 2}, counts{60, 40, 0, 7};
  const Regions regions = compact_regions(counts);
  for (SamplerOptions sampler : {SamplerOptions{16, 0.25}, {30, 0.0}, {500, 0.5}, {1, 1.0}})
    for (uint64_t seed : {1, 2}) {
      const Philox random{seed, 77};
      const auto run = [&](const Regions& r, Device d) {
        return sample_regions(r, random_truth(truth, d), 3, region_assignment(), sampler, random);
      };
      const RegionTargets found = run(on_gpu(regions, 64), test_gpu()), wanted = run(regions, {});
      SCOPED_TRACE(testing::Message() << "size " << sampler.size << ", seed " << seed);
      expect_same(found.regions, wanted.regions);
      const std::vector<int32_t> counts_found = found.regions.counts.to_vector<int32_t>();
      const auto same = [&]<typename T>(const Tensor& a, const Tensor& b, T) {
        EXPECT_EQ(gathered(a, counts_found).to_vector<T>(), b.to_vector<T>());
      };
      same(found.labels, wanted.labels, int32_t{});
      same(found.wanted, wanted.wanted, float{});
      same(found.is_truth, wanted.is_truth, uint8_t{});
      EXPECT_EQ(found.num_regions.item(), wanted.num_regions.item());
      for (int64_t each : {1, 3}) {
        const RegionDeltas a = region_deltas(found, 3, each, {}),
                           b = region_deltas(wanted, 3, each, {});
        expect_near(gathered(a.deltas, counts_found).to_vector<float>(),
                    b.deltas.to_vector<float>());
        same(a.weights, b.weights, float{});
      }
      // The next stage of a cascade.
      const Tensor deltas = random_tensor({wanted.regions.size(), 4}, 5, 0.2f);
      if (deltas.numel() > 0) deltas.data<float>()[1] = kNan;
      const Tensor padded = spread(deltas, wanted.regions.counts, found.regions.places(), kNan);
      expect_same(refine_regions(found.regions, {padded.to(test_gpu()), {}},
                                 sizes_for(4).to(test_gpu()), found.is_truth),
                  refine_regions(wanted.regions, {deltas, {}}, sizes_for(4), wanted.is_truth));
      expect_same(
          refine_regions(found.regions, {padded.to(test_gpu()), {}}, sizes_for(4).to(test_gpu())),
          refine_regions(wanted.regions, {deltas, {}}, sizes_for(4)));
    }
}

TEST(CudaAnchorTargets, AsOnTheHost) {
  MIXPL_NEEDS_GPU();
  AnchorOptions options;
  options.strides = {8, 16};
  options.scales = {3};
  const std::vector<int64_t> truth{3, 0, 6};
  for (float border : {-1.0f, 0.0f})
    for (SamplerOptions sampler : {SamplerOptions{256, 0.5}, {20, 0.3}}) {
      const auto run = [&](Device d) {
        AnchorGenerator generator(options);
        const std::vector<Tensor> maps{Tensor::zeros({3, 11, 10, 3}, DType::f32, d),
                                       Tensor::zeros({3, 6, 5, 3}, DType::f32, d)};
        const Anchors anchors = generator.levels(maps);
        Tensor valid = valid_anchors(options, maps, {{90, 80}, {50, 80}, {88, 40}});
        if (border >= 0) valid = anchors_inside(anchors, valid, sizes_for(3).to(d), border);
        MaxIouOptions assign;
        assign.pos_iou = 0.5f;
        assign.neg_iou = 0.3f;
        return sample_anchor_targets(anchors, random_truth(truth, d), valid, {}, assign, sampler, 1,
                                     Philox{3, 9});
      };
      const AnchorTargets found = run(test_gpu()), wanted = run({});
      EXPECT_EQ(found.num_sampled.item(), wanted.num_sampled.item());
      for (size_t l = 0; l < 2; ++l) {
        EXPECT_EQ(found.objectness[l].to_vector<float>(), wanted.objectness[l].to_vector<float>());
        EXPECT_EQ(found.sampled[l].to_vector<float>(), wanted.sampled[l].to_vector<float>());
        EXPECT_EQ(found.positive[l].to_vector<float>(), wanted.positive[l].to_vector<float>());
        expect_near(found.deltas[l].to_vector<float>(), wanted.deltas[l].to_vector<float>());
      }
    }
}

TEST(CudaRegionDetections, AsOnTheHost) {
  MIXPL_NEEDS_GPU();
  const std::vector<int64_t> counts{30, 0, 9};
  const Regions regions = compact_regions(counts);
  for (int64_t classes : {1, 5, 40})
    for (int stages : {1, 3})
      for (bool agnostic : {false, true})
        for (float thr : {0.0f, 0.05f, 0.4f}) {
          if (classes == 40 && (stages == 3 || thr == 0)) continue;  // a block a class: slow here
          RegionDetectionOptions o;
          o.score_thr = thr;
          o.max_per_image = 25;
          o.min_size = stages == 1 ? -1.0f : 4.0f;
          std::vector<Tensor> logits, padded;
          const int64_t places = 33;
          for (int s = 0; s < stages; ++s) {
            Tensor t = random_tensor({regions.size(), classes + 1}, 30 + s, 2);
            if (s == 0) {  // equal scores, and none
              std::copy_n(t.data<float>(), classes + 1, t.data<float>() + classes + 1);
              t.data<float>()[3 * (classes + 1)] = kNan;
            }
            logits.push_back(t);
            padded.push_back(spread(t, regions.counts, places, kNan).to(test_gpu()));
          }
          const Tensor deltas =
              random_tensor({regions.size(), agnostic ? 4 : 4 * classes}, 40, 0.2f);
          deltas.data<float>()[2] = kNan;
          const Tensor padded_deltas = spread(deltas, regions.counts, places, kNan).to(test_gpu());
          SCOPED_TRACE(testing::Message()
                       << classes << " classes, " << stages << " stages, above " << thr);
          expect_same(detect_regions(on_gpu(regions, places), padded, {padded_deltas, {}},
                                     sizes_for(3).to(test_gpu()), o),
                      detect_regions(regions, logits, {deltas, {}}, sizes_for(3), o));
        }
}

TEST(CudaRegionPlaces, AsOnTheHost) {
  MIXPL_NEEDS_GPU();
  Regions regions = compact_regions({20, 3});
  for (int64_t i = 0; i < regions.boxes.numel(); ++i) regions.boxes.data<float>()[i] *= 9;
  regions.boxes.data<float>()[4] = kNan;
  const std::vector<int32_t> counts{20, 3};
  for (bool torchvision : {false, true})
    EXPECT_EQ(
        gathered(places_of(on_gpu(regions, 25), {4, torchvision}), counts).to_vector<int32_t>(),
        places_of(regions, {4, torchvision}).to_vector<int32_t>());
}

// What a training step on a device computes: rows beyond the regions must not count.
TEST(PaddedRegions, LossesAreThoseOfTheCompactRows) {
  const std::vector<int64_t> truth{3, 1}, counts{30, 4};
  const RegionTargets targets = sample_regions(compact_regions(counts), random_truth(truth, {}), 3,
                                               region_assignment(), {16, 0.25}, Philox{1, 2});
  const int64_t places = 20;
  RegionTargets padded = targets;
  const auto pad = [&](const Tensor& t, float fill) {
    return spread(t, targets.regions.counts, places, fill);
  };
  padded.regions.boxes = pad(targets.regions.boxes, 0);
  padded.wanted = pad(targets.wanted, 0);
  padded.labels = pad(targets.labels, -1).alias({2 * places});
  const Tensor logits = random_tensor({targets.regions.size(), 4}, 60),
               deltas = random_tensor({targets.regions.size(), 12}, 61);
  EXPECT_EQ(softmax_cross_entropy(pad(logits, kNan), padded.labels).item(),
            softmax_cross_entropy(logits, targets.labels).item());
  const RegionDeltas a = region_deltas(padded, 3, 3, {}), b = region_deltas(targets, 3, 3, {});
  EXPECT_EQ(smooth_l1_loss(pad(deltas, kNan), a.deltas, a.weights, 1).item(),
            smooth_l1_loss(deltas, b.deltas, b.weights, 1).item());
}

}  // namespace
}  // namespace mixpl
