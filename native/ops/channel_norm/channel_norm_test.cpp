// Normalisations on the CPU beyond what the ops' own tests see: instruction sets, numbers of
// threads, outputs that go past the caches, and sums that could cancel.
#include <gtest/gtest.h>

#include <cmath>

#include "core/avx512.h"
#include "core/parallel.h"
#include "core/philox.h"
#include "ops/channel_norm/channel_norm.h"
#include "ops/channel_norm/channel_norm_rows.h"

// The portable loops, too, which no library for this processor has.
#define MIXPL_VECTOR_LANES 8
#define MIXPL_SIMD
#define MIXPL_SIMD_NAME portable_lanes
#define MIXPL_SIMD_PORTABLE
#include "ops/channel_norm/simd/rows.h"

namespace mixpl {
namespace {

using cpu::channel_norm::BackwardRows;
using cpu::channel_norm::ForwardRows;
using cpu::channel_norm::RowBlock;
using cpu::channel_norm::RowLoops;

Tensor normals(const Shape& shape, uint64_t stream, DType dtype = DType::f32, float offset = 0) {
  Tensor t = Tensor::empty(shape, DType::f32);
  const Philox random(7, stream);
  // Repeats, out of step with pixels: normals cost more than what is tested.
  constexpr int64_t kPeriod = 10007;
  for (int64_t i = 0; i < t.numel(); ++i)
    t.data<float>()[i] = i < kPeriod ? random.normal(i) + offset : t.data<float>()[i - kPeriod];
  return t.to(dtype);
}

struct ThreadsScope {
  int before = omp_get_max_threads();
  explicit ThreadsScope(int threads) { omp_set_num_threads(threads); }
  ~ThreadsScope() { omp_set_num_threads(before); }
};

using Values = std::vector<std::vector<float>>;
Values values_of(std::initializer_list<Tensor> tensors) {
  Values values;
  for (const Tensor& t : tensors)
    if (t.defined()) values.push_back(t.to(DType::f32).to_vector<float>());
  return values;
}

/// What is normalised, and how.
struct Case {
  NormView view;
  bool residual = false, relu = false;
  float offset = 0.5f;
  float outlier = 0;  // where not 0, every 256th pixel of an image, from its first on
  Shape shape() const { return {view.images, view.pixels, view.channels}; }
  Tensor x(DType dtype) const {
    Tensor t = normals(shape(), 1, DType::f32, offset);
    if (outlier != 0)
      for (int64_t n = 0; n < view.images; ++n)
        for (int64_t p = 0; p < view.pixels; p += 256)
          std::fill_n(t.data<float>() + (n * view.pixels + p) * view.channels, view.channels,
                      outlier);
    return t.to(dtype);
  }
};

/// y, mean, rstd, then the gradients of x, residual, gamma and beta.
Values normalise(const Case& c, DType dtype) {
  NormBackward back;
  NormForward& f = back.forward;
  f.view = c.view;
  f.x = c.x(dtype);
  f.gamma = normals({c.view.channels}, 2);
  f.beta = normals({c.view.channels}, 3);
  if (c.residual) f.residual = normals(c.shape(), 4, dtype);
  f.relu = c.relu;
  f.mean = Tensor::empty({c.view.stats()}, DType::f32);
  f.rstd = Tensor::empty({c.view.stats()}, DType::f32);
  Tensor y = Tensor::empty_like(f.x);
  cpu::norm_by_image(f, 1e-5f, f.mean, f.rstd, y);
  back.y = y;
  back.dout = normals(c.shape(), 5, dtype);
  back.dx = Tensor::empty_like(f.x);
  if (c.residual && c.relu) back.dresidual = Tensor::empty_like(f.x);
  back.dgamma = Tensor::zeros({c.view.channels}, DType::f32);
  back.dbeta = Tensor::zeros({c.view.channels}, DType::f32);
  cpu::norm_backward(back);
  return values_of({y, f.mean, f.rstd, back.dx, back.dresidual, back.dgamma, back.dbeta});
}

template <typename T>
Values run_loops(const RowLoops<T>& loops, RowBlock block, bool streams, bool residual,
                 NormMask mask) {
  const Shape shape{block.rows, block.width}, line{block.width};
  const DType dtype = dtype_of<T>();
  const Tensor x = normals(shape, 1, dtype), add = normals(shape, 2, dtype),
               dout = normals(shape, 3, dtype);
  const Tensor mean = normals(line, 4), scale = normals(line, 5), shift = normals(line, 6),
               slope = normals(line, 7), offset = normals(line, 8);
  const Tensor y = Tensor::empty_like(x), dx = Tensor::empty_like(x),
               dresidual = Tensor::empty_like(x);
  Tensor sums[4];
  for (Tensor& s : sums) s = Tensor::zeros(line, DType::f32);
  loops.moments(x.data<T>(), mean.data<float>(), block, sums[0].data<float>(),
                sums[1].data<float>());
  ForwardRows<T> f{x.data<T>(),
                   residual ? add.data<T>() : nullptr,
                   y.data<T>(),
                   mean.data<float>(),
                   scale.data<float>(),
                   shift.data<float>(),
                   mask != NormMask::none,
                   streams};
  loops.forward(f, block);
  BackwardRows<T> b{};
  b.x = x.data<T>();
  b.dout = dout.data<T>();
  b.y = y.data<T>();
  b.dresidual = mask == NormMask::output ? dresidual.data<T>() : nullptr;
  b.dx = dx.data<T>();
  b.mean = mean.data<float>();
  b.scale = scale.data<float>();
  b.shift = shift.data<float>();
  b.slope = slope.data<float>();
  b.offset = offset.data<float>();
  b.mask = mask;
  b.streams = streams;
  loops.sums(b, block, sums[2].data<float>(), sums[3].data<float>());
  loops.gradient(b, block);
  return values_of(
      {y, dx, mask == NormMask::output ? dresidual : Tensor(), sums[0], sums[1], sums[2], sums[3]});
}

template <typename T>
void expect_same_loops() {
  [[maybe_unused]] const bool wide =
      dtype_of<T>() == DType::bf16 ? has_avx512_bf16() : has_avx512();
  for (const RowBlock block :
       {RowBlock{5, 64, false}, RowBlock{9, 64, true}, RowBlock{7, 256, true},
        RowBlock{3, 256, false}, RowBlock{6, 131, true}, RowBlock{4, 77, false},
        RowBlock{1, 5, true}})
    for (const bool residual : {false, true})
      for (const NormMask mask : {NormMask::none, NormMask::recompute, NormMask::output}) {
        const Values want = run_loops<T>(cpu::channel_norm::portable_lanes::kLoops<T>, block, false,
                                         residual, mask);
        for (const bool streams : {false, true}) {
          if (streams && block.width % 64) continue;  // needs rows of whole cache lines
#if defined(__x86_64__)
          EXPECT_EQ(
              run_loops<T>(cpu::channel_norm::avx2_loops<T>(), block, streams, residual, mask),
              want)
              << block.rows << " x " << block.width << (streams ? ", past the caches" : "");
          if (wide)
            EXPECT_EQ(
                run_loops<T>(cpu::channel_norm::avx512_loops<T>(), block, streams, residual, mask),
                want)
                << block.rows << " x " << block.width << (streams ? ", past the caches" : "");
#endif
        }
      }
}

TEST(ChannelNorm, InstructionSetsHaveTheSameBits) {
  expect_same_loops<float>();
  expect_same_loops<bfloat16>();
}

TEST(ChannelNorm, BitsDoNotDependOnThreads) {
  for (const Case& c : {Case{{5, 700, 48, 8}, true, true}, Case{{1, 1025, 7, 7}, false, true},
                        Case{{3, 1, 256, 32}, true, false}, Case{{2, 3000, 100, 4}, true, true},
                        Case{{4, 300, 3, 1}, false, false}})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      Values want;
      {
        const ThreadsScope one(1);
        want = normalise(c, dtype);
      }
      for (const int threads : {2, 3, 7}) {
        const ThreadsScope scope(threads);
        EXPECT_EQ(normalise(c, dtype), want) << threads << " threads";
      }
    }
}

// Images are independent, so the last one of a batch that goes past the caches has the bits that it
// has alone.
TEST(ChannelNorm, OutputsPastTheCachesAreTheSame) {
  const int64_t images = 5, pixels = 10000, channels = 128;  // 25.6 MB
  for (const bool relu : {false, true}) {
    NormForward all;
    all.view = {images, pixels, channels, 32};
    all.x = normals({images, pixels, channels}, 1);
    all.gamma = normals({channels}, 2);
    all.beta = normals({channels}, 3);
    all.relu = relu;
    NormForward last = all;
    last.view.images = 1;
    last.x = Tensor::empty({1, pixels, channels}, DType::f32);
    const int64_t numel = pixels * channels;
    const auto end_of = [&](const Tensor& t) {
      return std::vector<float>(t.data<float>() + (images - 1) * numel,
                                t.data<float>() + images * numel);
    };
    std::copy_n(all.x.data<float>() + (images - 1) * numel, numel, last.x.data<float>());
    const auto run = [](NormForward f) {
      f.mean = Tensor::empty({f.view.stats()}, DType::f32);
      f.rstd = Tensor::empty({f.view.stats()}, DType::f32);
      NormBackward back;
      back.y = Tensor::empty_like(f.x);
      cpu::norm_by_image(f, 1e-5f, f.mean, f.rstd, back.y);
      back.forward = f;
      back.dout = f.x;
      back.dx = Tensor::empty_like(f.x);
      cpu::norm_backward(back);
      return back;
    };
    const NormBackward together = run(all), alone = run(last);
    EXPECT_EQ(end_of(together.y), alone.y.to_vector<float>());
    EXPECT_EQ(end_of(together.dx), alone.dx.to_vector<float>());
  }
}

/// f(stat, mean, variance) of each group, in f64.
template <typename F>
void for_each_group(const NormView& view, const Tensor& x, F&& f) {
  const int64_t size = view.group_size(), values = view.pixels * size;
  for (int64_t n = 0; n < view.images; ++n)
    for (int64_t g = 0; g < view.groups; ++g) {
      const auto mean_of = [&](auto&& term) {
        double sum = 0;
        for (int64_t p = 0; p < view.pixels; ++p)
          for (int64_t i = 0; i < size; ++i)
            sum += term(x.data<float>()[(n * view.pixels + p) * view.channels + g * size + i]);
        return sum / static_cast<double>(values);
      };
      const double mean = mean_of([](double v) { return v; });
      f(n * view.groups + g, mean, mean_of([=](double v) { return (v - mean) * (v - mean); }));
    }
}

TEST(ChannelNorm, KeepsASmallDeviationBesideALargeMean) {
  // The mean is rounded once, the deviation as if the mean were 0.
  const Case c{{2, 999, 24, 3}, false, false, 3000};
  const Values got = normalise(c, DType::f32);
  for_each_group(c.view, c.x(DType::f32), [&](int64_t stat, double mean, double variance) {
    EXPECT_NEAR(got[1][stat], mean, 1.25e-4);  // half of the last place
    EXPECT_NEAR(got[2][stat] * std::sqrt(variance + 1e-5), 1, 2e-7);
  });
}

// Each is the first value of a chunk: squares that are told from it would be 256 times as large.
TEST(ChannelNorm, KeepsItsDigitsBesideOutliers) {
  for (const float outlier : {1e4f, -3e6f})
    for (const Case& c : {Case{{2, 999, 24, 3}, false, false, 0.5f, outlier},
                          Case{{1, 1104, 64, 64}, false, false, 20, outlier}}) {
      const Values got = normalise(c, DType::f32);
      for_each_group(c.view, c.x(DType::f32), [&](int64_t stat, double mean, double variance) {
        EXPECT_NEAR((got[1][stat] - mean) / std::sqrt(variance), 0, 2e-7) << outlier;
        EXPECT_NEAR(got[2][stat] * std::sqrt(variance + 1e-5), 1, 2e-7) << outlier;
      });
    }
}

// Live BatchNorm over small maps magnifies what its statistics lose, layer after layer.
TEST(ChannelNorm, StatisticsOfOneChannelAreRoundedLittleMoreThanOnce) {
  for (const int64_t pixels : {20, 256, 1104, 5000}) {
    const Case c{{1, pixels, 64, 64}};
    const Values got = normalise(c, DType::f32);
    double means = 0, deviations = 0;
    for_each_group(c.view, c.x(DType::f32), [&](int64_t stat, double mean, double variance) {
      means += std::pow(got[1][stat] - mean, 2) / variance;
      deviations += std::pow(got[2][stat] * std::sqrt(variance + 1e-5) - 1, 2);
    });
    // On average over channels; a number near 1 that is rounded once is 2^-24 / sqrt(3) off.
    EXPECT_LT(std::sqrt(means / 64), 0x1p-24) << pixels;
    EXPECT_LT(std::sqrt(deviations / 64), 0x1p-24) << pixels;
  }
}

}  // namespace
}  // namespace mixpl
