// Gradients added to what maps, filters and biases have gathered, in the product's own launch on a
// GPU.
#include <gtest/gtest.h>

#include <cmath>

#include "autograd/tape.h"
#include "core/cuda/emulation_settings.h"
#include "core/cuda/runtime.h"
#include "core/philox.h"
#include "ops/conv2d/conv2d.h"

namespace mixpl {
namespace {

Tensor noise(const Shape& shape, uint64_t seed, Device device, DType type) {
  Tensor t = Tensor::empty(shape, DType::f32);
  const Philox random{seed, 0};
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = random.uniform(i) - 0.5f;
  return t.to(device).to(type);
}

struct Case {
  int64_t height, width, c, k;
  int kernel, stride, groups;
};

struct Gradients {
  std::vector<std::vector<float>> maps, shared;  // shared: of the filters, then the bias
};

// Gradients that start with what was gathered; of one map by itself, or of a list.
Gradients gradients(const Case& s, Device device, DType type, bool list, bool gathered,
                    int64_t launches = -1) {
  Tape tape;
  Context context;
  context.device = device;
  context.compute = type;
  context.tape = &tape;
  const ContextScope scope(context);
  Conv2dOptions options;
  options.stride = s.stride;
  options.padding = s.kernel / 2;
  options.groups = s.groups;
  std::vector<Tensor> shared{
      noise({s.k, s.kernel, s.kernel, s.c / s.groups}, 1, device, DType::f32),
      noise({s.k}, 2, device, DType::f32)};
  for (Tensor& t : shared) {
    t.set_requires_grad(true);
    if (gathered) t.set_grad(noise(t.shape(), 40, device, DType::f32));
  }
  std::vector<Tensor> xs, ys, seeds;
  for (int l = 0; l < (list ? 3 : 1); ++l) {
    xs.push_back(noise({2, s.height + l, s.width, s.c}, 10 + l, device, type));
    xs[l].set_requires_grad(true);
    // The last level starts with nothing.
    if (gathered && l < 2) xs[l].set_grad(noise(xs[l].shape(), 20 + l, device, type));
  }
  if (list)
    ys = conv2d(xs, shared[0], shared[1], options);
  else
    ys.push_back(conv2d(xs[0], shared[0], shared[1], options));
  for (const Tensor& y : ys) seeds.push_back(noise(y.shape(), 30, device, type));
  if (launches >= 0) {
    cuda::EmulatedFaults faults;
    faults.launches_to_fail = launches;
    cuda::set_emulated_faults(faults);
  }
  tape.backward(ys, seeds);
  Gradients all;
  for (const Tensor& x : xs) all.maps.push_back(x.grad().to(DType::f32).to_vector<float>());
  for (const Tensor& t : shared) all.shared.push_back(t.grad().to_vector<float>());
  return all;
}

// f32 in all types, so that the sum has the bits of one that is made afterwards.
void expect_shared(const Gradients& got, const Gradients& own) {
  for (size_t i = 0; i < own.shared.size(); ++i) {
    const std::vector<float> before =
        noise({static_cast<int64_t>(own.shared[i].size())}, 40, Device::cpu(), DType::f32)
            .to_vector<float>();
    std::vector<float> want = own.shared[i];
    for (size_t e = 0; e < want.size(); ++e) want[e] += before[e];
    EXPECT_EQ(got.shared[i], want) << (i == 0 ? "filters" : "bias");
  }
}

TEST(Conv2dGatheredCuda, AddsToWhatIsThere) {
  std::vector<Device> devices{Device::cpu()};
  if (cuda_reason().empty()) devices.push_back(Device::cuda(0));
  const Case cases[] = {{6, 5, 16, 8, 3, 1, 1},   {7, 6, 16, 24, 1, 2, 1},
                        {7, 5, 6, 9, 3, 2, 1},    {5, 6, 8, 8, 3, 1, 2},
                        {3, 2, 16, 600, 3, 1, 1}, {20, 9, 136, 136, 1, 1, 1}};
  for (const Device device : devices)
    for (DType type : {DType::f32, DType::bf16})
      for (const Case& s : cases)
        for (bool list : {false, true}) {
          SCOPED_TRACE(testing::Message() << device << type << " " << s.c << "->" << s.k << list);
          const auto own = gradients(s, device, type, list, false);
          const auto got = gradients(s, device, type, list, true);
          expect_shared(got, own);
          for (size_t l = 0; l < own.maps.size(); ++l) {
            const Shape shape{2, s.height + static_cast<int64_t>(l), s.width, s.c};
            const auto before =
                noise(shape, 20 + l, device, type).to(DType::f32).to_vector<float>();
            int64_t wrong = 0;
            for (size_t i = 0; i < own.maps[l].size(); ++i) {
              const float sum = own.maps[l][i] + (l < 2 ? before[i] : 0.0f);
              // Of two roundings to bf16 a GPU leaves one out.
              const float most =
                  type == DType::f32 ? 0 : (std::fabs(sum) + std::fabs(own.maps[l][i])) / 256;
              wrong += !(std::fabs(got.maps[l][i] - sum) <= most);
            }
            EXPECT_EQ(wrong, 0) << "level " << l;
          }
        }
}

// Large enough for the tiles of Hopper's copy engine; too large for an emulated device.
TEST(Conv2dGatheredCuda, AddsInTilesThatTheHardwareCopies) {
  if (!cuda_reason().empty() || cuda::is_emulated() || !cuda::has_warpgroups())
    GTEST_SKIP() << "for GPUs of compute capability 9.0";
  const Case cases[] = {{100, 168, 256, 256, 3, 1, 1}, {100, 168, 64, 256, 1, 1, 1},
                        {100, 168, 64, 64, 3, 1, 1},   {99, 167, 128, 128, 3, 2, 1},
                        {100, 168, 512, 256, 1, 2, 1}, {50, 83, 512, 256, 1, 1, 1},
                        {101, 167, 128, 128, 3, 1, 1}, {25, 42, 512, 512, 3, 1, 1}};
  const Device device = Device::cuda(0);
  for (const Case& s : cases)
    for (bool list : {false, true}) {
      SCOPED_TRACE(testing::Message() << s.kernel << "x" << s.kernel << " " << s.c << "->" << s.k
                                      << (list ? ", levels" : ""));
      const auto own = gradients(s, device, DType::bf16, list, false);
      const auto got = gradients(s, device, DType::bf16, list, true);
      expect_shared(got, own);
      for (size_t l = 0; l < own.maps.size(); ++l) {
        const Shape shape{2, s.height + static_cast<int64_t>(l), s.width, s.c};
        const auto before =
            noise(shape, 20 + l, device, DType::bf16).to(DType::f32).to_vector<float>();
        int64_t wrong = 0;
        for (size_t i = 0; i < own.maps[l].size(); ++i) {
          const float sum = own.maps[l][i] + (l < 2 ? before[i] : 0.0f);
          wrong += !(std::fabs(got.maps[l][i] - sum) <=
                     (std::fabs(sum) + std::fabs(own.maps[l][i])) / 256);
        }
        EXPECT_EQ(wrong, 0) << "level " << l;
      }
    }
}

TEST(Conv2dGatheredCuda, TakesNoLaunchMore) {
  try {
    cuda::set_emulated_faults({});
  } catch (const DeviceError&) {
    GTEST_SKIP() << "launches are counted on the emulated device";
  }
  const auto launches = [](bool list, bool gathered) {
    for (int64_t n = 0;; ++n) {
      bool failed = false;
      try {
        gradients({6, 5, 16, 8, 3, 1, 1}, Device::cuda(0), DType::bf16, list, gathered, n);
      } catch (const DeviceError&) {
        failed = true;
      }
      cuda::set_emulated_faults({});
      if (!failed) return n;
    }
  };
  for (bool list : {false, true}) EXPECT_EQ(launches(list, true), launches(list, false));
}

}  // namespace
}  // namespace mixpl
