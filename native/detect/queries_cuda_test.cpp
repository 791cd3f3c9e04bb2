// Queries on the device: the host's numbers bit by bit, and nothing that waits for the device.
#include <gtest/gtest.h>

#include <array>

#include "core/allocator.h"
#include "core/philox.h"
#include "detect/device_test.h"
#include "detect/queries.h"
#include "ops/gather_rows/gather_rows.h"

namespace mixpl {
namespace {

Tensor normals(const Shape& shape, uint64_t seed) {
  Tensor t = Tensor::empty(shape, DType::f32);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = Philox{seed, 0}.normal(i);
  return t;
}

Tensor shares(const Shape& shape, uint64_t seed) {
  Tensor t = Tensor::empty(shape, DType::f32);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = Philox{seed, 1}.uniform(i);
  return t;
}

Truth random_truth(const std::vector<int64_t>& counts, Device device) {
  std::vector<Tensor> boxes, labels;
  for (size_t n = 0; n < counts.size(); ++n) {
    std::vector<Box> own;
    std::vector<int32_t> classes;
    for (int64_t i = 0; i < counts[n]; ++i) {
      const auto u = [&](uint64_t k) { return Philox{n, 7}.uniform(5 * i + k); };
      own.push_back({300 * u(0), 200 * u(1), 300 * u(0) + 200 * u(2), 200 * u(1) + 200 * u(3)});
      classes.push_back(static_cast<int32_t>(20 * u(4)));
    }
    boxes.push_back(tensor_of(own));
    labels.push_back(Tensor::from(classes, {counts[n]}));
  }
  return join_truth("test", boxes, labels, device);
}

TEST(CudaQueries, DenoisingIsTheHostsBitByBit) {
  MIXPL_NEEDS_GPU();
  const Tensor sizes = Tensor::from(std::vector<float>{400, 500, 333, 640, 512, 512}, {3, 2});
  for (const auto& counts : {std::vector<int64_t>{3, 11, 0}, {0, 0, 0}, {1, 1, 60}}) {
    const auto make = [&](Device device) {
      return denoising_queries(random_truth(counts, device), sizes.to(device), 20, {}, {41, 3});
    };
    const DenoisingQueries ours = make(test_gpu()), theirs = make({});
    EXPECT_EQ(ours.groups, theirs.groups);
    EXPECT_EQ(ours.group_size, theirs.group_size);
    EXPECT_EQ(ours.labels.to_vector<int32_t>(), theirs.labels.to_vector<int32_t>());
    EXPECT_EQ(ours.references.to_vector<float>(), theirs.references.to_vector<float>());
    const QueryTargets &a = ours.targets, &b = theirs.targets;
    EXPECT_EQ(a.labels.to_vector<int32_t>(), b.labels.to_vector<int32_t>());
    EXPECT_EQ(a.boxes.to_vector<float>(), b.boxes.to_vector<float>());
    EXPECT_EQ(a.weights.to_vector<float>(), b.weights.to_vector<float>());
    EXPECT_EQ(a.objects.to_vector<int32_t>(), b.objects.to_vector<int32_t>());
    EXPECT_EQ(a.positives, b.positives);
  }
}

// Logits as networks give them: neighbours whose scores differ by a bit, or by none.
TEST(CudaQueries, DetectionsAreTheHosts) {
  MIXPL_NEEDS_GPU();
  const Device gpu = test_gpu();
  const Tensor sizes = Tensor::from(std::vector<float>{400, 500, 333, 640}, {2, 2});
  for (const auto& [queries, classes, most] :
       {std::array<int64_t, 3>{100, 91, 100}, {300, 80, 300}, {900, 7, 100}}) {
    for (const DType type : {DType::f32, DType::bf16}) {
      const Tensor logits = normals({2, queries, classes}, 5).to(type),
                   boxes = shares({2, queries, 4}, 6);
      expect_same(detect_queries(logits.to(gpu), boxes.to(gpu), sizes.to(gpu), most),
                  detect_queries(logits, boxes, sizes, most));
      EXPECT_EQ(best_tokens(logits.to(gpu), most).to_vector<int32_t>(),
                best_tokens(logits, most).to_vector<int32_t>());
    }
  }
}

TEST(CudaQueries, WaitForNothingButTheDetections) {
  MIXPL_NEEDS_GPU();
  const Device gpu = test_gpu();
  const Tensor logits = normals({2, 300, 20}, 1).to(gpu), boxes = shares({2, 300, 4}, 2).to(gpu);
  const Tensor sizes = Tensor::from(std::vector<float>{400, 500, 333, 640}, {2, 2}).to(gpu);
  const Truth truth = random_truth({3, 8}, gpu);
  const int64_t before = memory_stats(gpu).synchronisations;
  const Tensor rows = best_tokens(logits, 50);
  gather_rows(boxes, rows, 4);
  const DenoisingQueries noisy = denoising_queries(truth, sizes, 20, {}, {1, 2});
  denoising_mask(noisy, 300, gpu);
  PendingDetections found = detect_queries(logits, boxes, sizes, 100);
  EXPECT_EQ(memory_stats(gpu).synchronisations, before);
  found.get();
  EXPECT_EQ(memory_stats(gpu).synchronisations, before + 1);
}

}  // namespace
}  // namespace mixpl
