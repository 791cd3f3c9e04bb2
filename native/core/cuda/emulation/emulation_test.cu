// The emulation finds mistakes that a GPU forgives or answers with garbage, and says whose they
// are. What intrinsics compute is in core/cuda/kernel_test.cu.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/allocator.h"
#include "core/cuda/kernel.h"
#include "core/error.h"

namespace mixpl::cuda {
namespace {

const Device kGpu = Device::cuda(0);

template <typename T>
Tensor on_gpu(const std::vector<T>& values) {
  return Tensor::from(values, {static_cast<int64_t>(values.size())}, kGpu);
}

// The message of the DeviceError that f ends in.
template <typename F>
std::string error_of(F f) {
  try {
    f();
  } catch (const DeviceError& e) {
    return e.what();
  }
  return "no error";
}
#define EXPECT_ERROR(part, ...)                                  \
  do {                                                           \
    const std::string message = error_of([&] { __VA_ARGS__; });  \
    EXPECT_NE(message.find(part), std::string::npos) << message; \
  } while (false)

class Emulation : public ::testing::Test {
 protected:
  void TearDown() override { emulation::settings() = {}; }
};

MIXPL_KERNEL order_kernel(int* next, int* order) { order[blockIdx.x] = atomic_add(next, 1); }

TEST_F(Emulation, ShufflesBlocksBySeed) {
  const auto order = [](uint64_t seed) {
    emulation::settings().order_seed = seed;
    const Tensor next = Tensor::zeros({1}, DType::i32, kGpu);
    const Tensor out = Tensor::zeros({64}, DType::i32, kGpu);
    launch(order_kernel, 64, 1, 0, next.data<int32_t>(), out.data<int32_t>());
    return out.to_vector<int32_t>();
  };
  EXPECT_EQ(order(1), order(1));
  EXPECT_NE(order(1), order(2));
  EXPECT_NE(order(0), order(1));
  for (int i = 0; i < 64; ++i) EXPECT_EQ(order(0)[i], i);
}

// --- barriers

MIXPL_KERNEL two_barriers_kernel(int* out) {
  if (threadIdx.x < 32)
    sync_block();
  else
    sync_block();
  out[threadIdx.x] = 1;
}
MIXPL_KERNEL left_before_barrier_kernel(int* out) {
  if (threadIdx.x == 3) return;
  sync_block();
  out[threadIdx.x] = 1;
}
MIXPL_KERNEL divergent_shuffle_kernel(int* out) {
  out[threadIdx.x] = lane() < 16 ? shfl_xor(1, 1) : shfl_down(1, 1);
}
MIXPL_KERNEL barrier_in_half_a_warp_kernel(int* out) {
  if (lane() < 16) sync_block();
  out[threadIdx.x] = shfl(1, 0);
}
MIXPL_KERNEL missing_lane_kernel(int* out) { out[threadIdx.x] = shfl_xor(1, 16); }

TEST_F(Emulation, FindsDivergence) {
  const Tensor t = Tensor::zeros({64}, DType::i32, kGpu);
  for (uint64_t seed : {0, 5}) {
    emulation::settings().order_seed = seed;
    EXPECT_ERROR("waits at another", launch(two_barriers_kernel, 1, 64, 0, t.data<int32_t>()));
    EXPECT_ERROR("sync_block (emulation_test.cu",
                 launch(left_before_barrier_kernel, 1, 1, 0, t.data<int32_t>());
                 launch(left_before_barrier_kernel, 1, 64, 0, t.data<int32_t>()));
    EXPECT_ERROR("while other lanes of its warp wait at",
                 launch(divergent_shuffle_kernel, 1, 32, 0, t.data<int32_t>()));
    EXPECT_ERROR("threads wait for each other",
                 launch(barrier_in_half_a_warp_kernel, 1, 32, 0, t.data<int32_t>()));
    EXPECT_ERROR("does not exist", launch(missing_lane_kernel, 1, 24, 0, t.data<int32_t>()));
  }
  // The message names who launched, block and thread; and the next launch works.
  emulation::settings().order_seed = 0;
  EXPECT_ERROR("emulation_test.cu", launch(two_barriers_kernel, 1, 64, 0, t.data<int32_t>()));
  EXPECT_ERROR("block (0, 0, 0), thread (32, 0, 0)",
               launch(two_barriers_kernel, 1, 64, 0, t.data<int32_t>()));
  t.detach().fill(2);
  EXPECT_EQ(t.to_vector<int32_t>()[63], 2);
}

// --- races: what a missing barrier would hide is seen in natural or in shuffled order

MIXPL_KERNEL missing_barrier_kernel(float* values, bool backwards) {
  MIXPL_SHARED(float, tile, 64);
  tile[threadIdx.x] = 1;
  values[threadIdx.x] = tile[backwards ? 0 : 63];
}

TEST_F(Emulation, ShowsMissingBarriers) {
  const Tensor t = Tensor::zeros({64}, DType::f32, kGpu);
  const std::vector<float> good(64, 1);
  for (bool backwards : {false, true}) {
    bool found = false;
    for (uint64_t seed : {0, 1}) {
      emulation::settings().order_seed = seed;
      launch(missing_barrier_kernel, 1, 64, 0, t.data<float>(), backwards);
      found = found || t.to_vector<float>() != good;
    }
    EXPECT_TRUE(found) << backwards;
  }
}

// --- memory

MIXPL_KERNEL write_shared_kernel(int index) {
  MIXPL_SHARED(float, tile, 30);
  tile[index] = 1;
}
MIXPL_KERNEL write_dynamic_kernel(int index) {
  MIXPL_DYNAMIC_SHARED(float, tile);
  tile[index] = 1;
}
MIXPL_KERNEL write_kernel(float* p, int64_t index) { p[index] = 1; }

// AddressSanitizer stops at the access; without it the guards are looked at after the block.
#if defined(__SANITIZE_ADDRESS__)
#define EXPECT_OVERRUN(part, ...) EXPECT_DEATH(__VA_ARGS__, "AddressSanitizer|out of bounds")
#else
#define EXPECT_OVERRUN(part, ...) EXPECT_ERROR(part, __VA_ARGS__)
#endif

TEST_F(Emulation, FindsAccessesBesideSharedMemory) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_NO_THROW(launch(write_shared_kernel, 1, 1, 0, 29));
  EXPECT_OVERRUN("wrote behind tile (120 bytes)", launch(write_shared_kernel, 1, 1, 0, 30));
  EXPECT_OVERRUN("wrote in front of tile", launch(write_shared_kernel, 1, 1, 0, -1));
  EXPECT_NO_THROW(launch(write_dynamic_kernel, 1, 1, 16, 3));
  EXPECT_OVERRUN("dynamic shared memory", launch(write_dynamic_kernel, 1, 1, 16, 4));
}

TEST_F(Emulation, FindsAccessesBesideDeviceMemory) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const Tensor t = Tensor::zeros({5}, DType::f32, kGpu);
  EXPECT_NO_THROW(launch(write_kernel, 1, 1, 0, t.data<float>(), 4));
  EXPECT_OVERRUN("wrote beside a block of 20 bytes",
                 launch(write_kernel, 1, 1, 0, t.data<float>(), 5));
  EXPECT_OVERRUN("wrote beside a block of 20 bytes",
                 launch(write_kernel, 1, 1, 0, t.data<float>(), -1));
  EXPECT_ERROR("no device memory was handed out",
               launch(write_kernel, 1, 1, 0, t.data<float>(), int64_t{1} << 30));
  EXPECT_NO_THROW(launch(write_kernel, 1, 1, 0, t.data<float>(), 4));
}

#if defined(__SANITIZE_ADDRESS__)
MIXPL_KERNEL read_shared_kernel(float* out, int index) {
  MIXPL_SHARED(float, tile, 30);
  tile[29] = 1;
  out[0] = tile[index];
}
MIXPL_KERNEL read_kernel(const float* in, float* out, int64_t index) { out[0] = in[index]; }

// What only AddressSanitizer sees: guards tell of writes alone, and a read of another tensor's
// values looks like any other.
TEST_F(Emulation, FindsReadsBesideMemory) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const Tensor in = Tensor::zeros({5}, DType::f32, kGpu),
               out = Tensor::zeros({1}, DType::f32, kGpu);
  const auto read = [&](int64_t index) {
    launch(read_kernel, 1, 1, 0, in.data<float>(), out.data<float>(), index);
  };
  EXPECT_NO_THROW(read(4));
  EXPECT_DEATH(read(5), "AddressSanitizer");
  EXPECT_DEATH(read(-1), "AddressSanitizer");
  float* given_back = Tensor::zeros({100}, DType::f32, kGpu).data<float>();
  EXPECT_DEATH(launch(read_kernel, 1, 1, 0, given_back, out.data<float>(), 0), "AddressSanitizer");
  EXPECT_NO_THROW(launch(read_shared_kernel, 1, 1, 0, out.data<float>(), 29));
  EXPECT_DEATH(launch(read_shared_kernel, 1, 1, 0, out.data<float>(), 30), "AddressSanitizer");
}
#endif

TEST_F(Emulation, FindsHostAccesses) {
  const Tensor t = Tensor::zeros({5}, DType::f32, kGpu);
  volatile float* p = t.data<float>();
  EXPECT_ERROR("device memory was touched on the host", (void)p[0]);
  EXPECT_ERROR("device memory was touched on the host", p[4] = 1);
  std::vector<float> host(5);
  EXPECT_EQ(t.to_vector<float>(), host);
  EXPECT_ERROR("got one into host memory", launch(write_kernel, 1, 1, 0, host.data(), 0));
  EXPECT_ERROR("which is host memory", copy_to_device(host.data(), host.data(), 4));
  EXPECT_ERROR("its block has 20 more", copy_to_host(host.data(), t.raw(), 24));
}

MIXPL_KERNEL leave_shared_kernel(float* out, bool write) {
  MIXPL_SHARED(float, tile, 1);
  if (write) tile[0] = 7;
  out[blockIdx.x] = tile[0];
}

TEST_F(Emulation, PoisonsWhatNobodyHasWritten) {
  for (uint8_t byte : {0xff, 0x5a}) {
    emulation::settings().poison = byte;
    uint32_t word;
    std::memset(&word, byte, sizeof word);
    const Tensor t = Tensor::empty({3}, DType::i32, kGpu);
    EXPECT_EQ(t.to_vector<int32_t>(), std::vector<int32_t>(3, static_cast<int32_t>(word)));
    launch(leave_shared_kernel, 3, 1, 0, static_cast<float*>(t.raw()), true);
    launch(leave_shared_kernel, 3, 1, 0, static_cast<float*>(t.raw()), false);
    EXPECT_EQ(t.to_vector<int32_t>(), std::vector<int32_t>(3, static_cast<int32_t>(word)));
  }
  // Memory that goes around through the pool is poisoned anew.
  release_cached_memory(kGpu);  // so that there is one block of this size
  void* first = Tensor::zeros({1000}, DType::i32, kGpu).raw();
  const Tensor again = Tensor::empty({1000}, DType::i32, kGpu);
  EXPECT_EQ(first, again.raw());
  EXPECT_EQ(again.to_vector<int32_t>()[999], 0x5a5a5a5a);
}

MIXPL_KERNEL missing_wait_kernel(const float* in, float* out, int wait) {
  MIXPL_SHARED(float, tile, 8);
  cp_async16(tile, in);
  cp_async_commit();
  cp_async16(tile + 4, in);
  cp_async_commit();
  if (wait == 1) cp_async_wait<1>();
  if (wait == 0) cp_async_wait<0>();
  for (int i = 0; i < 8; ++i) out[i] = tile[i];
  if (wait == 1) cp_async_wait<0>();
}
MIXPL_KERNEL misplaced_copy_kernel(const float* in, float* out) {
  cp_async16(out, in);
  cp_async_wait<0>();
}
MIXPL_KERNEL misaligned_kernel(const float* in, float* out) {
  store_vec(out, load_vec<float, 4>(in + 1));
}

TEST_F(Emulation, FindsMissingWaits) {
  const Tensor in = on_gpu(std::vector<float>{1, 2, 3, 4}),
               out = Tensor::zeros({8}, DType::f32, kGpu);
  const auto run = [&](int wait) {
    launch(missing_wait_kernel, 1, 1, 0, in.data<float>(), out.data<float>(), wait);
    return out.to_vector<float>();
  };
  EXPECT_EQ(run(0), (std::vector<float>{1, 2, 3, 4, 1, 2, 3, 4}));
  EXPECT_EQ(run(1)[3], 4);
  EXPECT_TRUE(std::isnan(run(1)[4]));
  EXPECT_ERROR("2 cp_async that it never waited for", run(2));
  EXPECT_ERROR("not in shared memory",
               launch(misplaced_copy_kernel, 1, 1, 0, in.data<float>(), out.data<float>()));
  EXPECT_ERROR("no multiple",
               launch(misaligned_kernel, 1, 1, 0, in.data<float>(), out.data<float>()));
}

MIXPL_KERNEL warpgroup_kernel(const float* in, float* out, bool fence, bool wait) {
  MIXPL_DYNAMIC_SHARED(char, tile);
  for (int i = threadIdx.x; i < 192 * 8; i += 128) cp_async16(tile + 16 * i, in);
  cp_async_commit();
  cp_async_wait<0>();
  if (fence) fence_async_proxy();
  sync_block();
  float sums[64] = {};
  wgmma_begin();
  wgmma_bf16<false, false>(sums, wgmma_descriptor(tile),
                           wgmma_descriptor(tile + 64 * kSwizzleBytes), true);
  wgmma_commit();
  out[threadIdx.x] = sums[0];
  if (wait) wgmma_wait<0>();
}

TEST_F(Emulation, FindsMistakesWithWarpgroups) {
  const Tensor in = Tensor::zeros({4}, DType::f32, kGpu),
               out = Tensor::zeros({128}, DType::f32, kGpu);
  const auto run = [&](bool fence, bool wait) {
    launch(warpgroup_kernel, 1, 128, 192 * kSwizzleBytes, in.data<float>(), out.data<float>(),
           fence, wait);
  };
  run(true, true);
  EXPECT_TRUE(std::isnan(out.to_vector<float>()[0]));  // read before the wait
  EXPECT_ERROR("without fence_async_proxy", run(false, true));
  EXPECT_ERROR("wgmma that it never waited for", run(true, false));
}

TEST_F(Emulation, RunsOutOfMemoryAsADeviceDoes) {
  try {
    Tensor::empty({int64_t{1} << 36}, DType::f32, kGpu);
    FAIL();
  } catch (const OutOfMemoryError& e) {
    EXPECT_NE(std::string(e.what()).find("emulated"), std::string::npos) << e.what();
  }
}

TEST_F(Emulation, RefusesLaunchesAsADeviceWould) {
  const Tensor t = Tensor::zeros({1}, DType::f32, kGpu);
  const auto run = [&](Grid grid, dim3 block, size_t shared) {
    launch(write_kernel, grid, block, shared, t.data<float>(), 0);
  };
  EXPECT_NO_THROW(run(0, 32, 0));
  EXPECT_ERROR("a block must have 1 to 1024 threads", run(1, 1025, 0));
  EXPECT_ERROR("a block must have 1 to 1024 threads", run(1, 0, 0));
  EXPECT_ERROR("65535", run(dim3(1, 65536), 1, 0));
  EXPECT_ERROR("bytes of shared memory", run(1, 1, 228 << 10));
}

}  // namespace
}  // namespace mixpl::cuda
