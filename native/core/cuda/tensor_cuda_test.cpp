// Tensors on a GPU (an emulated one included): what they hold, where they go, what they cost.
#include <gtest/gtest.h>

#include "core/allocator.h"
#include "core/cuda/runtime.h"
#include "core/launch.h"
#include "core/tensor_values.h"

namespace mixpl {
namespace {

const Device kGpu = Device::cuda(0);

class TensorOnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cuda_reason().empty()) GTEST_SKIP() << cuda_reason();
  }
};

TEST(Devices, AreParsedOrRefusedWithTheReason) {
  EXPECT_EQ(Device::parse("cpu"), Device::cpu());
  EXPECT_NO_THROW(Device::parse("auto"));
  for (const char* wrong : {"gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:0x", "cuda0", ""})
    EXPECT_THROW(Device::parse(wrong), DeviceError) << wrong;
  EXPECT_EQ(list_devices()[0].device, Device::cpu());
  if (cuda_reason().empty()) {
    EXPECT_EQ(Device::parse("cuda:0"), kGpu);
    EXPECT_THROW(Device::parse("cuda:99"), DeviceError);
    EXPECT_EQ(to_string(kGpu), "cuda:0");
    EXPECT_FALSE(cuda_architectures().empty());
    return;
  }
  EXPECT_EQ(Device::parse("auto"), Device::cpu());
  try {
    Device::parse("cuda");
    FAIL();
  } catch (const DeviceError& e) {
    EXPECT_NE(std::string(e.what()).find(cuda_reason()), std::string::npos) << e.what();
  }
}

TEST_F(TensorOnGpu, HoldsWhatItWasGiven) {
  const std::vector<float> values{1, -2, 3.5f, 4, 5, 6};
  const Tensor t = Tensor::from(values, {2, 3}, kGpu);
  EXPECT_EQ(t.device(), kGpu);
  EXPECT_EQ(t.to_vector<float>(), values);
  EXPECT_EQ(t.clone().to_vector<float>(), values);
  EXPECT_EQ(t.alias({6}).to_vector<float>(), values);
  EXPECT_THROW(t.to_vector<int32_t>(), DTypeError);
  EXPECT_EQ(Tensor::from(std::vector<float>{7}, {}, kGpu).item(), 7);
  EXPECT_EQ(Tensor::from(std::vector<bfloat16>{7}, {}, kGpu).item(), 7);
  const Tensor half = t.to(DType::bf16);
  EXPECT_EQ(half.device(), kGpu);
  EXPECT_EQ(half.to(DType::f32).to_vector<float>(), values);
  EXPECT_THROW(t.to(DType::i32), DTypeError);
}

template <typename T>
void check_fill() {
  const DType dtype = dtype_of<T>();
  for (int64_t n : {0, 1, 1000}) {
    EXPECT_EQ(Tensor::full({n}, 3, dtype, kGpu).to_vector<T>().size(), static_cast<size_t>(n));
    for (const T& v : Tensor::full({n}, 3, dtype, kGpu).to_vector<T>()) ASSERT_EQ(float(v), 3);
    for (const T& v : Tensor::zeros({n}, dtype, kGpu).to_vector<T>()) ASSERT_EQ(float(v), 0);
  }
}

TEST_F(TensorOnGpu, IsFilledInEveryType) {
  check_fill<float>();
  check_fill<bfloat16>();
  check_fill<int32_t>();
  check_fill<int64_t>();
  check_fill<uint8_t>();
}

TEST_F(TensorOnGpu, MovesBetweenDevices) {
  const std::vector<int32_t> values{1, 2, 3};
  const Tensor host = Tensor::from(values, {3});
  const Tensor device = host.to(kGpu);
  EXPECT_TRUE(host.to(Device::cpu()).same_as(host));
  EXPECT_TRUE(device.to(kGpu).same_as(device));
  EXPECT_EQ(device.to(Device::cpu()).to_vector<int32_t>(), values);
  Tensor target = Tensor::zeros({3}, DType::i32, kGpu);
  const uint64_t version = target.impl()->version;
  target.copy_from(host);
  EXPECT_EQ(target.to_vector<int32_t>(), values);
  EXPECT_NE(target.impl()->version, version);
  target.fill(0);
  target.copy_from(device);
  Tensor back = Tensor::zeros({3}, DType::i32);
  back.copy_from(target);
  EXPECT_EQ(back.to_vector<int32_t>(), values);
  EXPECT_EQ(Tensor::zeros({0}, DType::f32).to(kGpu).to_vector<float>().size(), 0u);
}

TEST_F(TensorOnGpu, ReadsManyScalarsWithOneWait) {
  std::vector<Tensor> scalars;
  std::vector<float> values;
  for (int i = 0; i < 150; ++i) {
    values.push_back(static_cast<float>(i));
    scalars.push_back(Tensor::full({}, values.back(), DType::f32, kGpu));
  }
  const int64_t waits = memory_stats(kGpu).synchronisations;
  EXPECT_EQ(read_scalars(scalars), values);
  EXPECT_EQ(memory_stats(kGpu).synchronisations, waits + 1);
  EXPECT_TRUE(read_scalars({}).empty());
  EXPECT_THROW(read_scalars({Tensor::zeros({2}, DType::f32, kGpu)}), ShapeError);
  EXPECT_THROW(read_scalars({scalars[0], Tensor::zeros({}, DType::f32)}), DeviceError);
}

TEST_F(TensorOnGpu, AddsUpGradients) {
  const std::vector<float> a{1, -2, 0.25f, 1024}, b{3, 5, -0.125f, 1};
  for (DType to : {DType::f32, DType::bf16})
    for (DType from : {DType::f32, DType::bf16}) {
      const Tensor sum = Tensor::from(a, {4}, kGpu).to(to);
      MIXPL_DISPATCH(kGpu, add_values, Tensor::from(b, {4}, kGpu).to(from), sum);
      // 1025 has no place in 8 bits.
      EXPECT_EQ(sum.to(DType::f32).to_vector<float>(),
                (std::vector<float>{4, 3, 0.125f, to == DType::f32 ? 1025.0f : 1024.0f}));
    }
}

TEST_F(TensorOnGpu, CastsAndAddsWhatFillsNoPack) {
  const DType types[] = {DType::f32, DType::bf16};
  for (int64_t n : {0, 1, 3, 7, 8, 9, 17, 4099}) {
    std::vector<float> a, b;
    for (int64_t i = 0; i < n; ++i) {
      a.push_back(static_cast<float>(i) / 7 - 100);
      b.push_back(static_cast<float>(i % 13) / 3);
    }
    for (DType from : types)
      for (DType to : types) {
        const auto added = [&](Device device) {
          const Tensor sum = Tensor::from(b, {n}, device).to(to);
          const Tensor more = Tensor::from(a, {n}, device).to(from);
          if (n) MIXPL_DISPATCH(device, add_values, more, sum);
          return sum.to(DType::f32).to_vector<float>();
        };
        EXPECT_EQ(added(kGpu), added(Device::cpu())) << n;
      }
  }
}

TEST_F(TensorOnGpu, ReusesMemoryWithoutWaiting) {
  release_cached_memory(kGpu);
  { const Tensor warm = Tensor::zeros({1000}, DType::f32, kGpu); }
  const MemoryStats before = memory_stats(kGpu);
  for (int i = 0; i < 20; ++i) {
    const Tensor a = Tensor::full({1000 - i}, 2, DType::f32, kGpu);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(a.raw()) % 64, 0u);
  }
  const MemoryStats after = memory_stats(kGpu);
  EXPECT_EQ(after.system_allocations, before.system_allocations);
  EXPECT_EQ(after.synchronisations, before.synchronisations);
  EXPECT_EQ(after.live_bytes, before.live_bytes);
  EXPECT_THROW(Tensor::empty({int64_t{1} << 50}, DType::f32, kGpu), OutOfMemoryError);
}

}  // namespace
}  // namespace mixpl
