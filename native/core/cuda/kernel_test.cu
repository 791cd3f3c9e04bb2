// What kernels are made of, on whatever device there is: the emulation, or a GPU.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/cuda/kernel.h"

namespace mixpl::cuda {
namespace {

const Device kGpu = Device::cuda(0);

class Kernels : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cuda_reason().empty()) GTEST_SKIP() << cuda_reason();
  }
  /// Runs f; emulated, in several orders of blocks and threads.
  template <typename F>
  void in_any_order(F f) {
#if defined(MIXPL_CUDA_EMULATED)
    for (uint64_t seed : {0, 1, 7}) {
      emulation::settings().order_seed = seed;
      f();
    }
    emulation::settings() = {};
#else
    f();
#endif
  }
};

template <typename T>
Tensor on_gpu(const std::vector<T>& values) {
  return Tensor::from(values, {static_cast<int64_t>(values.size())}, kGpu);
}
template <typename T>
Tensor made_on_gpu(int64_t n) {
  return Tensor::empty({n}, dtype_of<T>(), kGpu);
}

// --- grids

MIXPL_KERNEL count_kernel(int* visits) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x;
  const int y = blockIdx.y * blockDim.y + threadIdx.y;
  const int z = blockIdx.z * blockDim.z + threadIdx.z;
  const int width = gridDim.x * blockDim.x, height = gridDim.y * blockDim.y;
  atomic_add(&visits[(z * height + y) * width + x], 1);
}

TEST_F(Kernels, RunEveryThreadOnce) {
  in_any_order([] {
    const Tensor visits = Tensor::zeros({6 * 8 * 10}, DType::i32, kGpu);
    launch(count_kernel, dim3(3, 2, 5), dim3(2, 4, 2), 0, visits.data<int32_t>());
    launch(count_kernel, 0, 32, 0, nullptr);
    launch(count_kernel, dim3(1, 0), 32, 0, nullptr);
    EXPECT_EQ(visits.to_vector<int32_t>(), std::vector<int32_t>(480, 1));
  });
}

struct Iota {
  float* out;
  MIXPL_DEVICE void operator()(int64_t i) const { out[i] = static_cast<float>(i % 1000); }
};

TEST_F(Kernels, ForEachCoversWhatIsLargerThanTheGrid) {
  const int64_t n = int64_t{blocks_for(1 << 30)} * 256 + 17;
  const Tensor t = made_on_gpu<float>(n);
  for_each(n, Iota{t.data<float>()});
  const auto values = t.to_vector<float>();
  for (int64_t i = 0; i < n; ++i) ASSERT_EQ(values[i], i % 1000);
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

TEST_F(Kernels, MeetAtBarriers) {
  std::vector<float> values(200), reversed(200);
  for (int i = 0; i < 200; ++i) values[i] = reversed[199 - i] = static_cast<float>(i);
  in_any_order([&] {
    const Tensor t = on_gpu(values);
    launch(reverse_kernel, 1, 200, 0, t.data<float>());
    EXPECT_EQ(t.to_vector<float>(), reversed);
    // More than the 48 KiB that every kernel may have.
    launch(reverse_dynamic_kernel, 1, 200, 100 << 10, t.data<float>());
    EXPECT_EQ(t.to_vector<float>(), values);
  });
}

// --- warps

MIXPL_KERNEL shuffle_kernel(int* out) {
  int* mine = out + 8 * threadIdx.x;
  const int v = 100 + lane();
  mine[0] = shfl(v, 5);
  mine[1] = shfl_xor(v, 3);
  mine[2] = shfl_down(v, 4);
  mine[3] = shfl_up(v, 4);
  mine[4] = static_cast<int>(ballot(lane() % 3 == 0));
  mine[5] = any(lane() == 31) + 2 * any(lane() == 32);
  mine[6] = all(lane() < 32) + 2 * all(lane() < 31);
  mine[7] = warp();
  sync_warp();
}
MIXPL_KERNEL shuffle_double_kernel(double* out) {
  out[threadIdx.x] = shfl_xor(1.0 / (1 + lane()), 1);
}

TEST_F(Kernels, WarpsExchangeValues) {
  in_any_order([] {
    const Tensor out = made_on_gpu<int32_t>(8 * 64);
    launch(shuffle_kernel, 1, 64, 0, out.data<int32_t>());
    const auto got = out.to_vector<int32_t>();
    uint32_t thirds = 0;
    for (int i = 0; i < 32; i += 3) thirds |= 1u << i;
    for (int t = 0; t < 64; ++t) {
      const int l = t % 32;
      EXPECT_EQ(got[8 * t + 0], 105);
      EXPECT_EQ(got[8 * t + 1], 100 + (l ^ 3));
      EXPECT_EQ(got[8 * t + 2], 100 + (l + 4 < 32 ? l + 4 : l));
      EXPECT_EQ(got[8 * t + 3], 100 + (l >= 4 ? l - 4 : l));
      EXPECT_EQ(static_cast<uint32_t>(got[8 * t + 4]), thirds);
      EXPECT_EQ(got[8 * t + 5], 1);
      EXPECT_EQ(got[8 * t + 6], 1);
      EXPECT_EQ(got[8 * t + 7], t / 32);
    }
    const Tensor halves = made_on_gpu<int64_t>(32);
    launch(shuffle_double_kernel, 1, 32, 0, static_cast<double*>(halves.raw()));
    const auto bits = halves.to_vector<int64_t>();
    for (int l = 0; l < 32; ++l) EXPECT_EQ(std::bit_cast<double>(bits[l]), 1.0 / (1 + (l ^ 1)));
  });
}

MIXPL_KERNEL leave_early_kernel(int* out) {
  if (lane() >= 20) return;
  out[lane()] = static_cast<int>(ballot(lane() % 2 == 0));
}

TEST_F(Kernels, LanesThatHaveLeftAreNotWaitedFor) {
  in_any_order([] {
    const Tensor out = made_on_gpu<int32_t>(20);
    launch(leave_early_kernel, 1, 32, 0, out.data<int32_t>());
    EXPECT_EQ(out.to_vector<int32_t>(), std::vector<int32_t>(20, 0x55555));
  });
}

MIXPL_KERNEL bits_kernel(int* out) {
  const uint32_t values[] = {0, 1, 0x80000000u, 0x00f0u};
  for (int i = 0; i < 4; ++i) {
    out[3 * i] = popcount(values[i]);
    out[3 * i + 1] = lowest_bit(values[i]);
    out[3 * i + 2] = leading_zeros(values[i]);
  }
}

TEST_F(Kernels, CountBits) {
  const Tensor out = made_on_gpu<int32_t>(12);
  launch(bits_kernel, 1, 1, 0, out.data<int32_t>());
  EXPECT_EQ(out.to_vector<int32_t>(),
            (std::vector<int32_t>{0, -1, 32, 1, 0, 31, 1, 31, 0, 4, 4, 24}));
}

// --- atomics

MIXPL_KERNEL atomics_kernel(int* i, unsigned* u, float* f, double* d, unsigned long long* l) {
  const int t = static_cast<int>(thread_index());
  atomic_add(&i[0], t);
  atomic_max(&i[1], t % 77);
  atomic_min(&i[2], -t);
  atomic_add(&u[0], 2u);
  atomic_or(&u[1], 1u << t % 32);
  atomic_exch(&u[2], 9u);
  if (atomic_cas(&u[3], 0u, 1u + t) == 0u) atomic_add(&u[4], 1u);
  atomic_add(&f[0], 0.5f);
  atomic_add(&d[0], 0.25);
  atomic_cas(&l[0], 0ull, 1ull << 40);
  fence();
}

TEST_F(Kernels, AddAtomically) {
  in_any_order([] {
    const Tensor i = Tensor::zeros({3}, DType::i32, kGpu), u = Tensor::zeros({5}, DType::i32, kGpu),
                 f = Tensor::zeros({1}, DType::f32, kGpu), d = Tensor::zeros({1}, DType::i64, kGpu),
                 l = Tensor::zeros({1}, DType::i64, kGpu);
    launch(atomics_kernel, 4, 64, 0, i.data<int32_t>(), static_cast<unsigned*>(u.raw()),
           f.data<float>(), static_cast<double*>(d.raw()),
           static_cast<unsigned long long*>(l.raw()));
    EXPECT_EQ(i.to_vector<int32_t>(), (std::vector<int32_t>{255 * 128, 76, -255}));
    const auto unsigneds = u.to_vector<int32_t>();
    EXPECT_EQ(unsigneds[0], 512);
    EXPECT_EQ(unsigneds[1], -1);
    EXPECT_EQ(unsigneds[2], 9);
    EXPECT_GT(unsigneds[3], 0);
    EXPECT_EQ(unsigneds[4], 1);
    EXPECT_EQ(f.item(), 128);
    EXPECT_EQ(std::bit_cast<double>(d.to_vector<int64_t>()[0]), 64);
    EXPECT_EQ(l.to_vector<int64_t>()[0], int64_t{1} << 40);
  });
}

// --- vectors

template <typename T, int N>
MIXPL_KERNEL vector_kernel(const T* in, T* out, int64_t count) {
  for (int64_t i = thread_index(); i < count; i += thread_count()) {
    Vec<T, N> v = load_vec<T, N>(in + N * i);
    for (int k = 0; k < N; ++k) v[k] = T(float(v[k]) + 1.0f);
    store_vec(out + N * i, v);
  }
}
template <typename T>
MIXPL_KERNEL read_only_kernel(const T* in, T* out) {
  out[threadIdx.x] = load_read_only(in + threadIdx.x);
}

TEST_F(Kernels, MoveVectors) {
  std::vector<float> values(64);
  for (int i = 0; i < 64; ++i) values[i] = static_cast<float>(i);
  std::vector<float> more = values;
  for (float& v : more) ++v;
  const Tensor in = on_gpu(values), out = Tensor::empty_like(in);
  launch(vector_kernel<float, 4>, 1, 32, 0, in.data<float>(), out.data<float>(), 16);
  EXPECT_EQ(out.to_vector<float>(), more);
  launch(read_only_kernel<float>, 1, 64, 0, in.data<float>(), out.data<float>());
  EXPECT_EQ(out.to_vector<float>(), values);
  const Tensor in16 = in.to(DType::bf16), out16 = Tensor::empty_like(in16);
  launch(vector_kernel<bfloat16, 8>, 1, 32, 0, in16.data<bfloat16>(), out16.data<bfloat16>(), 8);
  EXPECT_EQ(out16.to(DType::f32).to_vector<float>(), more);
  launch(read_only_kernel<bfloat16>, 1, 64, 0, in16.data<bfloat16>(), out16.data<bfloat16>());
  EXPECT_EQ(out16.to(DType::f32).to_vector<float>(), values);
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

TEST_F(Kernels, ReduceAndScanBlocks) {
  constexpr int n = 160;
  std::vector<float> values(n);
  for (int i = 0; i < n; ++i) values[i] = static_cast<float>((i * 37) % 101);
  const Tensor in = on_gpu(values), sum = Tensor::empty({n}, DType::f32, kGpu),
               most = Tensor::empty({n}, DType::f32, kGpu),
               exact = Tensor::empty({n}, DType::i64, kGpu),
               scan = Tensor::empty({2 * n}, DType::i32, kGpu);
  in_any_order([&] {
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
  });
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

TEST_F(Kernels, SumWholeTensors) {
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

// NaN is the largest and the smallest of all: a loss that is NaN must not hide.
MIXPL_KERNEL nan_kernel(const float* in, float* out) {
  const float v = in[threadIdx.x];
  const float most = block_max(v), least = block_min(v);
  out[2 * threadIdx.x] = most;
  out[2 * threadIdx.x + 1] = least;
}

TEST_F(Kernels, KeepNanInMaxima) {
  for (int place : {0, 17, 63}) {
    std::vector<float> values(64, 3);
    values[place] = std::numeric_limits<float>::quiet_NaN();
    const Tensor in = on_gpu(values), out = made_on_gpu<float>(128);
    launch(nan_kernel, 1, 64, 0, in.data<float>(), out.data<float>());
    for (float v : out.to_vector<float>()) EXPECT_TRUE(std::isnan(v)) << place;
  }
}

// --- asynchronous copies

MIXPL_KERNEL copy_kernel(const float* in, float* out, int valid_bytes) {
  MIXPL_SHARED(float, tile, 4 * 32 * 3);
  for (int stage = 0; stage < 3; ++stage) {
    cp_async16(&tile[4 * (32 * stage + threadIdx.x)], in + 4 * (32 * stage + threadIdx.x),
               valid_bytes);
    cp_async_commit();
  }
  cp_async_wait<2>();
  sync_block();
  for (int k = 0; k < 4; ++k) out[4 * threadIdx.x + k] = tile[4 * (31 - threadIdx.x) + k];
  cp_async_wait<0>();
  sync_block();
  for (int i = 128 + threadIdx.x; i < 384; i += 32) out[i] = tile[i];
}

TEST_F(Kernels, CopyToSharedMemoryInTheBackground) {
  std::vector<float> values(384);
  for (int i = 0; i < 384; ++i) values[i] = static_cast<float>(i + 1);
  const Tensor in = on_gpu(values), out = Tensor::empty_like(in);
  for (int valid : {0, 4, 12, 16}) {
    in_any_order([&] {
      launch(copy_kernel, 1, 32, 0, in.data<float>(), out.data<float>(), valid);
      const auto got = out.to_vector<float>();
      for (int i = 0; i < 384; ++i) {
        const int from = i < 128 ? 4 * (31 - i / 4) + i % 4 : i;
        ASSERT_EQ(got[i], 4 * (i % 4) < valid ? values[from] : 0) << i << " of " << valid;
      }
    });
  }
}

// --- tensor cores: fragments are loaded with ldmatrix, so its layout must be that of mma

MIXPL_KERNEL matrix_kernel(const bfloat16* a, const bfloat16* b, float* d, bool b_is_transposed) {
  // a [16][16], b [8][16] (columns contiguous, as mma wants it) or, transposed, [16][8].
  MIXPL_SHARED(bfloat16, as, 256);
  MIXPL_SHARED(bfloat16, bs, 128);
  for (int i = threadIdx.x; i < 256; i += 32) as[i] = a[i];
  for (int i = threadIdx.x; i < 128; i += 32) bs[i] = b[i];
  sync_block();
  uint32_t fa[4], fb[2];
  const int l = lane();
  ldmatrix_x4(fa, as + 16 * (l % 16) + 8 * (l / 16));
  if (b_is_transposed)
    ldmatrix_x2_trans(fb, bs + 8 * (l % 16));
  else
    ldmatrix_x2(fb, bs + 16 * (l % 8) + 8 * (l / 8 % 2));
  float acc[4] = {1, 1, 1, 1};
  mma_bf16_m16n8k16(acc, fa, fb);
  for (int i = 0; i < 4; ++i) d[8 * (l / 4 + 8 * (i / 2)) + 2 * (l % 4) + i % 2] = acc[i];
}

TEST_F(Kernels, MultiplyBf16Matrices) {
  std::vector<bfloat16> a(256), b(128), bt(128);
  for (int i = 0; i < 256; ++i) a[i] = static_cast<float>((i * 7) % 23 - 11);
  for (int n = 0; n < 8; ++n)
    for (int k = 0; k < 16; ++k)
      bt[8 * k + n] = b[16 * n + k] = static_cast<float>((n * 5 + k * 3) % 19 - 9);
  in_any_order([&] {
    for (bool transposed : {false, true}) {
      const Tensor at = on_gpu(a), bb = on_gpu(transposed ? bt : b), d = made_on_gpu<float>(128);
      launch(matrix_kernel, 1, 32, 0, at.data<bfloat16>(), bb.data<bfloat16>(), d.data<float>(),
             transposed);
      const auto got = d.to_vector<float>();
      for (int m = 0; m < 16; ++m)
        for (int n = 0; n < 8; ++n) {
          float want = 1;
          for (int k = 0; k < 16; ++k) want += float(a[16 * m + k]) * float(b[16 * n + k]);
          ASSERT_EQ(got[8 * m + n], want) << m << ", " << n;
        }
    }
  });
}

MIXPL_KERNEL tf32_kernel(const float* a, const float* b, float* d) {
  // a [16][8], b [8][8] by columns
  const int group = lane() / 4, in_group = lane() % 4;
  const uint32_t fa[4] = {to_tf32(a[8 * group + in_group]), to_tf32(a[8 * (group + 8) + in_group]),
                          to_tf32(a[8 * group + in_group + 4]),
                          to_tf32(a[8 * (group + 8) + in_group + 4])};
  const uint32_t fb[2] = {to_tf32(b[8 * group + in_group]), to_tf32(b[8 * group + in_group + 4])};
  float acc[4] = {};
  mma_tf32_m16n8k8(acc, fa, fb);
  for (int i = 0; i < 4; ++i) d[8 * (group + 8 * (i / 2)) + 2 * in_group + i % 2] = acc[i];
}

TEST_F(Kernels, MultiplyTf32Matrices) {
  std::vector<float> a(128), b(64);
  for (int i = 0; i < 128; ++i) a[i] = static_cast<float>((i * 7) % 23 - 11) / 8;
  for (int i = 0; i < 64; ++i) b[i] = static_cast<float>((i * 5) % 19 - 9);
  in_any_order([&] {
    const Tensor at = on_gpu(a), bt = on_gpu(b), d = made_on_gpu<float>(128);
    launch(tf32_kernel, 1, 32, 0, at.data<float>(), bt.data<float>(), d.data<float>());
    const auto got = d.to_vector<float>();
    for (int m = 0; m < 16; ++m)
      for (int n = 0; n < 8; ++n) {
        float want = 0;
        for (int k = 0; k < 8; ++k) want += a[8 * m + k] * b[8 * n + k];
        ASSERT_EQ(got[8 * m + n], want) << m << ", " << n;
      }
  });
}

MIXPL_KERNEL round_kernel(const float* in, uint32_t* out) {
  out[threadIdx.x] = to_tf32(in[threadIdx.x]);
}

TEST_F(Kernels, RoundToTf32) {
  const std::vector<float> values = {1.0f, 1.00048828125f, 1.0004882f, -1.00048828125f, INFINITY};
  const Tensor in = on_gpu(values), out = made_on_gpu<int32_t>(5);
  launch(round_kernel, 1, 5, 0, in.data<float>(), static_cast<uint32_t*>(out.raw()));
  const auto bits = out.to_vector<int32_t>();
  const float step = 1.0f / 1024;
  const std::vector<float> want = {1, 1 + step, 1, -1 - step, INFINITY};
  for (int i = 0; i < 5; ++i)
    EXPECT_EQ(static_cast<uint32_t>(bits[i]) & 0xffffe000u, std::bit_cast<uint32_t>(want[i])) << i;
}

// Every matrix of ldmatrix, plain and transposed, against the manual's layout.
template <int N, bool kTranspose>
MIXPL_KERNEL ldmatrix_kernel(uint32_t* out) {
  MIXPL_SHARED(uint16_t, rows, 8 * 8 * 4);
  for (int i = threadIdx.x; i < 256; i += 32) rows[i] = static_cast<uint16_t>(i);
  sync_block();
  uint32_t r[N];
  const uint16_t* row = rows + 8 * (threadIdx.x % (8 * N));
  if constexpr (N == 4 && kTranspose) ldmatrix_x4_trans(r, row);
  if constexpr (N == 4 && !kTranspose) ldmatrix_x4(r, row);
  if constexpr (N == 2 && kTranspose) ldmatrix_x2_trans(r, row);
  if constexpr (N == 2 && !kTranspose) ldmatrix_x2(r, row);
  if constexpr (N == 1 && kTranspose) ldmatrix_x1_trans(r, row);
  if constexpr (N == 1 && !kTranspose) ldmatrix_x1(r, row);
  for (int i = 0; i < N; ++i) out[N * threadIdx.x + i] = r[i];
}

template <int N, bool kTranspose>
void check_ldmatrix() {
  const Tensor out = made_on_gpu<int32_t>(32 * N);
  launch(ldmatrix_kernel<N, kTranspose>, 1, 32, 0, static_cast<uint32_t*>(out.raw()));
  const auto got = out.to_vector<int32_t>();
  for (int l = 0; l < 32; ++l)
    for (int i = 0; i < N; ++i) {
      const int r = l / 4, c = 2 * (l % 4);
      const int first = 64 * i + (kTranspose ? 8 * c + r : 8 * r + c);
      const int second = 64 * i + (kTranspose ? 8 * (c + 1) + r : 8 * r + c + 1);
      ASSERT_EQ(got[N * l + i], first | second << 16) << N << kTranspose << l << i;
    }
}

// --- warpgroups: both operands with rows along the reduction or along the result

// Rows of `columns` values into pieces of 128 bytes.
MIXPL_DEVICE void copy_pieces(const bfloat16* from, int rows, int columns, char* to) {
  for (int i = threadIdx.x; i < rows * columns / 8; i += blockDim.x) {
    const int row = i / (columns / 8), chunk = i % (columns / 8);
    cp_async16(to + (chunk / 8 * rows + row) * kSwizzleBytes + (chunk ^ row) % 8 * 16,
               from + 8 * i);
  }
}

// a is [64 rows, 64 terms], b [128 columns, 64 terms], or with kA (kB) the other way round.
template <bool kA, bool kB>
MIXPL_KERNEL warpgroup_kernel(const bfloat16* a, const bfloat16* b, float* d, bool fence) {
  MIXPL_DYNAMIC_SHARED(char, as);
  char* const bs = as + 64 * kSwizzleBytes;
  copy_pieces(a, 64, 64, as);
  copy_pieces(b, kB ? 64 : 128, kB ? 128 : 64, bs);
  cp_async_commit();
  cp_async_wait<0>();
  if (fence) fence_async_proxy();
  sync_block();
  float sums[64];
  for (float& sum : sums) sum = 1;
  wgmma_begin();
#pragma unroll
  for (int k = 0; k < 4; ++k)
    wgmma_bf16<kA, kB>(sums,
                       kA ? wgmma_descriptor(as + 16 * k * kSwizzleBytes, 64 * kSwizzleBytes)
                          : wgmma_descriptor(as + 32 * k),
                       kB ? wgmma_descriptor(bs + 16 * k * kSwizzleBytes, 64 * kSwizzleBytes)
                          : wgmma_descriptor(bs + 32 * k),
                       true);
  wgmma_commit();
  wgmma_wait<0>();
#pragma unroll
  for (int i = 0; i < 64; ++i)
    d[128 * (16 * warp() + lane() / 4 + 8 * (i / 2 % 2)) + i / 4 * 8 + 2 * (lane() % 4) + i % 2] =
        sums[i];
}

template <bool kA, bool kB>
void check_warpgroup() {
  std::vector<bfloat16> a(64 * 64), b(128 * 64);
  const auto left = [](int m, int k) { return static_cast<float>((m * 7 + k * 5) % 23 - 11); };
  const auto right = [](int n, int k) { return static_cast<float>((n * 3 + k * 11) % 19 - 9); };
  for (int k = 0; k < 64; ++k) {
    for (int m = 0; m < 64; ++m) a[kA ? 64 * k + m : 64 * m + k] = left(m, k);
    for (int n = 0; n < 128; ++n) b[kB ? 128 * k + n : 64 * n + k] = right(n, k);
  }
  const Tensor at = on_gpu(a), bt = on_gpu(b), d = made_on_gpu<float>(64 * 128);
  launch(warpgroup_kernel<kA, kB>, 1, 128, 192 * kSwizzleBytes, at.data<bfloat16>(),
         bt.data<bfloat16>(), d.data<float>(), true);
  const auto got = d.to_vector<float>();
  for (int m = 0; m < 64; ++m)
    for (int n = 0; n < 128; ++n) {
      float want = 1;
      for (int k = 0; k < 64; ++k) want += left(m, k) * right(n, k);
      ASSERT_EQ(got[128 * m + n], want) << kA << kB << ": " << m << ", " << n;
    }
}

TEST_F(Kernels, MultiplyByWarpgroups) {
  if (!has_warpgroups()) GTEST_SKIP() << "the GPU has no wgmma";
  in_any_order([] {
    check_warpgroup<false, false>();
    check_warpgroup<false, true>();
    check_warpgroup<true, false>();
    check_warpgroup<true, true>();
  });
}

TEST_F(Kernels, LoadMatrices) {
  in_any_order([] {
    check_ldmatrix<1, false>();
    check_ldmatrix<1, true>();
    check_ldmatrix<2, false>();
    check_ldmatrix<2, true>();
    check_ldmatrix<4, false>();
    check_ldmatrix<4, true>();
  });
}

}  // namespace
}  // namespace mixpl::cuda
