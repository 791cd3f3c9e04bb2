// The emulation itself: every intrinsic does what the hardware does, every mistake is found.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

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

// --- grids

MIXPL_KERNEL count_kernel(int* visits) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x;
  const int y = blockIdx.y * blockDim.y + threadIdx.y;
  const int z = blockIdx.z * blockDim.z + threadIdx.z;
  const int width = gridDim.x * blockDim.x, height = gridDim.y * blockDim.y;
  atomic_add(&visits[(z * height + y) * width + x], 1);
}

TEST_F(Emulation, RunsEveryThreadOnceInAnyOrder) {
  for (uint64_t seed : {0, 7}) {
    emulation::settings().order_seed = seed;
    const Tensor visits = Tensor::zeros({6 * 8 * 10}, DType::i32, kGpu);
    launch(count_kernel, dim3(3, 2, 5), dim3(2, 4, 2), 0, visits.data<int32_t>());
    EXPECT_EQ(visits.to_vector<int32_t>(), std::vector<int32_t>(480, 1));
  }
}

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

TEST_F(Emulation, RefusesLaunchesAsADeviceWould) {
  const Tensor t = Tensor::zeros({1}, DType::i32, kGpu);
  const auto run = [&](Grid grid, dim3 block, size_t shared) {
    launch(count_kernel, grid, block, shared, t.data<int32_t>());
  };
  EXPECT_NO_THROW(run(0, 32, 0));
  EXPECT_ERROR("a block must have 1 to 1024 threads", run(1, 1025, 0));
  EXPECT_ERROR("a block must have 1 to 1024 threads", run(1, 0, 0));
  EXPECT_ERROR("65535", run(dim3(1, 65536), 1, 0));
  EXPECT_ERROR("bytes of shared memory", run(1, 1, 228 << 10));
}

struct Iota {
  float* out;
  MIXPL_DEVICE void operator()(int64_t i) const { out[i] = static_cast<float>(i); }
};

TEST_F(Emulation, ForEachCoversWhatIsLargerThanTheGrid) {
  const int64_t n = int64_t{blocks_for(1 << 30)} * 256 + 17;
  const Tensor t = Tensor::empty({n}, DType::f32, kGpu);
  for_each(n, Iota{t.data<float>()});
  const auto values = t.to_vector<float>();
  for (int64_t i = 0; i < n; ++i) ASSERT_EQ(values[i], i);
  for_each(0, Iota{nullptr});
}

// --- barriers and shared memory

MIXPL_KERNEL reverse_kernel(float* values) {
  MIXPL_SHARED(float, tile, 256);
  tile[threadIdx.x] = values[threadIdx.x];
  sync_block();
  values[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}
MIXPL_KERNEL reverse_dynamic_kernel(float* values) {
  MIXPL_DYNAMIC_SHARED(float, tile);
  tile[threadIdx.x] = values[threadIdx.x];
  sync_block();
  values[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

TEST_F(Emulation, ThreadsMeetAtBarriers) {
  for (uint64_t seed : {0, 3}) {
    emulation::settings().order_seed = seed;
    std::vector<float> values(200), reversed(200);
    for (int i = 0; i < 200; ++i) values[i] = reversed[199 - i] = static_cast<float>(i);
    const Tensor t = on_gpu(values);
    launch(reverse_kernel, 1, 200, 0, t.data<float>());
    EXPECT_EQ(t.to_vector<float>(), reversed);
    launch(reverse_dynamic_kernel, 1, 200, 200 * sizeof(float), t.data<float>());
    EXPECT_EQ(t.to_vector<float>(), values);
  }
}

// --- reductions

MIXPL_KERNEL reduce_kernel(const float* in, float* sum, float* most, double* exact, int* scan) {
  const float v = in[threadIdx.x];
  const float s = block_sum(v), m = block_max(v);
  const double d = block_sum(double(v));
  int total = 0;
  const int before = block_scan_exclusive(static_cast<int>(v), &total);
  sum[threadIdx.x] = s;
  most[threadIdx.x] = m;
  exact[threadIdx.x] = d;
  scan[threadIdx.x] = before;
  scan[blockDim.x + threadIdx.x] = total;
}

TEST_F(Emulation, BlocksReduceAndScan) {
  constexpr int n = 160;
  std::vector<float> values(n);
  for (int i = 0; i < n; ++i) values[i] = static_cast<float>((i * 37) % 101);
  const Tensor in = on_gpu(values), sum = Tensor::empty({n}, DType::f32, kGpu),
               most = Tensor::empty({n}, DType::f32, kGpu),
               exact = Tensor::empty({n}, DType::i64, kGpu),
               scan = Tensor::empty({2 * n}, DType::i32, kGpu);
  launch(reduce_kernel, 1, n, 0, in.data<float>(), sum.data<float>(), most.data<float>(),
         static_cast<double*>(exact.raw()), scan.data<int32_t>());
  float total = 0;
  const auto scanned = scan.to_vector<int32_t>();
  for (int i = 0; i < n; ++i) {
    EXPECT_EQ(scanned[i], total);
    total += values[i];
  }
  EXPECT_EQ(scanned[n], total);
  EXPECT_EQ(scanned[2 * n - 1], total);
  EXPECT_EQ(sum.to_vector<float>(), std::vector<float>(n, total));
  EXPECT_EQ(most.to_vector<float>(), std::vector<float>(n, 100));
  EXPECT_EQ(exact.to_vector<int64_t>(),
            std::vector<int64_t>(n, std::bit_cast<int64_t>(double(total))));
}

struct Term {
  const float* values;
  MIXPL_DEVICE float operator()(int64_t i) const { return values[i]; }
};
struct RowTerm {
  const float* values;
  int64_t n;
  MIXPL_DEVICE float operator()(int64_t row, int64_t i) const { return values[row * n + i]; }
};

TEST_F(Emulation, SumsWholeTensors) {
  for (int64_t n : {0, 1, 255, 4096, 4097, 30000}) {
    std::vector<float> values(2 * n);
    double first = 0, second = 0;
    for (int64_t i = 0; i < 2 * n; ++i) {
      values[i] = std::sin(static_cast<float>(i)) * 1e3f;
      (i < n ? first : second) += values[i];
    }
    const Tensor in = on_gpu(values), out = Tensor::empty({2}, DType::f32, kGpu);
    reduce_sum(n, Term{in.data<float>()}, out.data<float>(), 0.5f);
    EXPECT_FLOAT_EQ(out.to_vector<float>()[0], static_cast<float>(0.5 * first));
    reduce_sum_rows(2, n, RowTerm{in.data<float>(), n}, out.data<float>());
    EXPECT_FLOAT_EQ(out.to_vector<float>()[0], static_cast<float>(first));
    EXPECT_FLOAT_EQ(out.to_vector<float>()[1], static_cast<float>(second));
  }
}

}  // namespace
}  // namespace mixpl::cuda
