#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <set>

#include "core/allocator.h"
#include "core/fence.h"
#include "core/math.h"
#include "core/options.h"
#include "core/parallel.h"
#include "core/philox.h"
#include "core/simd.h"
#include "core/tensor.h"

namespace mixpl {
namespace {

TEST(Bfloat16, RoundsToNearestEvenAndKeepsNan) {
  EXPECT_EQ(float(bfloat16(1.0f)), 1.0f);
  EXPECT_EQ(bfloat16(1.00390625f).bits, 0x3f80);  // halfway, to even: down
  EXPECT_EQ(bfloat16(1.01171875f).bits, 0x3f82);  // halfway, to even: up
  EXPECT_TRUE(std::isnan(float(bfloat16(std::nanf("")))));
  EXPECT_EQ(float(bfloat16(INFINITY)), INFINITY);
  EXPECT_EQ(float(bfloat16(-0.0f)), 0.0f);
}

TEST(Bfloat16, EightAtATimeAsOneByOne) {
  for (uint32_t high = 0; high < 0x10000; ++high) {
    const uint32_t low[8] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff, 0x4000, 0xc000};
    float from[8], back[8];
    bfloat16 got[8];
    for (int i = 0; i < 8; ++i) from[i] = std::bit_cast<float>(high << 16 | low[i]);
    simd::store(got, simd::load(from));
    simd::store(back, simd::load(got));
    for (int i = 0; i < 8; ++i) {
      ASSERT_EQ(got[i].bits, bfloat16(from[i]).bits) << high << " " << low[i];
      ASSERT_EQ(std::bit_cast<uint32_t>(back[i]), uint32_t{got[i].bits} << 16);
    }
  }
}

TEST(Tensor, HoldsWhatItWasGiven) {
  const Tensor t = Tensor::from(std::vector<float>{1, 2, 3, 4, 5, 6}, {2, 3});
  EXPECT_EQ(t.numel(), 6);
  EXPECT_EQ(t.size(-1), 3);
  EXPECT_EQ(t.to(DType::bf16).to(DType::f32).to_vector<float>(), t.to_vector<float>());
  EXPECT_THROW(t.data<int32_t>(), DTypeError);
  EXPECT_THROW(t.alias({4}), ShapeError);
  EXPECT_THROW(Tensor::empty({-1}, DType::f32), ShapeError);
  EXPECT_THROW(Tensor::from(std::vector<float>{1}, {2}), ShapeError);
}

TEST(Tensor, KnowsWhetherItIsTheOnlyOwner) {
  Tensor a = Tensor::zeros({4}, DType::f32);
  EXPECT_TRUE(a.unique());
  const Tensor b = a;
  EXPECT_FALSE(a.unique());
  EXPECT_FALSE(Tensor::zeros({4}, DType::f32).alias({2, 2}).unique() && a.unique());
  const Tensor view = Tensor::zeros({4}, DType::f32);
  const Tensor same = view.detach();
  EXPECT_FALSE(same.unique());
}

TEST(Tensor, ForgetsDerivedValuesWhenItChanges) {
  Tensor t = Tensor::zeros({1}, DType::f32);
  int made = 0;
  const auto make = [&] { return ++made; };
  EXPECT_EQ(t.derived<int>("n", make), 1);
  EXPECT_EQ(t.derived<int>("n", make), 1);
  t.fill(2);
  EXPECT_EQ(t.derived<int>("n", make), 2);
}

TEST(Allocator, ReusesBlocksAndAligns) {
  release_cached_memory({});
  const int64_t before = memory_stats({}).system_allocations;
  for (int i = 0; i < 10; ++i) {
    const auto block = allocate(200'000'000, {});
    EXPECT_EQ(reinterpret_cast<uintptr_t>(block.get()) % 64, 0u);
  }
  EXPECT_EQ(memory_stats({}).system_allocations, before + 1);
  EXPECT_THROW(allocate(int64_t{1} << 60, {}), OutOfMemoryError);
}

TEST(FenceDeathTest, TellsWhoWritesOutsideABlock) {
  std::vector<char> memory(300 + 2 * fence::kBytes);
  char* block = memory.data() + fence::kBytes;
  fence::build(block, 300);
  std::fill(block, block + 300, 'x');
  fence::check(block, 300);
  block[300] = 0;
  EXPECT_DEATH(fence::check(block, 300), "past the end of a block of 300 bytes");
  block[-fence::kBytes] = 0;
  EXPECT_DEATH(fence::check(block, 300), "in front of a block of 300 bytes");
}

TEST(Parallel, SumsTheSameForAnyNumberOfThreads) {
  const auto term = [](int64_t i) { return std::sin(double(i)) * 1e-3; };
  std::set<double> sums;
  for (int threads : {1, 2, 3, 7}) {
    omp_set_num_threads(threads);
    sums.insert(parallel_sum(100'003, term));
  }
  omp_set_num_threads(2);
  EXPECT_EQ(sums.size(), 1u);
}

TEST(Parallel, PassesExceptionsOn) {
  EXPECT_THROW(parallel_for(100, int64_t{1},
                            [](int64_t i) {
                              if (i == 77) throw RangeError("77");
                            }),
               RangeError);
}

TEST(Philox, MatchesTheReferenceVectors) {
  // Random123's kat_vectors: philox4x32-10, counter and key all zeros, then all ones.
  const Philox zero{0, 0};
  const auto block = zero.block(0);
  EXPECT_EQ(block[0], 0x6627e8d5u);
  EXPECT_EQ(block[1], 0xe169c58du);
  EXPECT_EQ(block[2], 0xbc57ac4cu);
  EXPECT_EQ(block[3], 0x9b00dbd8u);
  const Philox ones{~uint64_t{0}, ~uint64_t{0}};
  const auto last = ones.block(~uint64_t{0});
  EXPECT_EQ(last[0], 0x408f276du);
  EXPECT_EQ(last[1], 0x41c83b0eu);
  EXPECT_EQ(last[2], 0xa20bc7c6u);
  EXPECT_EQ(last[3], 0x6d5451fdu);
}

TEST(Philox, DrawsNormals) {
  const Philox p{7, 9};
  double sum = 0, square = 0;
  constexpr int n = 200'000;
  for (int i = 0; i < n; ++i) {
    const double v = p.normal(i);
    sum += v;
    square += v * v;
  }
  EXPECT_NEAR(sum / n, 0, 0.01);
  EXPECT_NEAR(square / n, 1, 0.02);
}

TEST(Options, ReadsTypedValuesAndNamesMistakes) {
  const Options o(R"({"a": 1.5, "n": 3, "b": true, "s": "x", "v": [1, 2], "o": {"k": 1}})", "test");
  EXPECT_EQ(o.number("a", 0), 1.5);
  EXPECT_EQ(o.integer("n", 0), 3);
  EXPECT_TRUE(o.boolean("b", false));
  EXPECT_EQ(o.text("s", ""), "x");
  EXPECT_EQ(o.numbers("v", {}).size(), 2u);
  EXPECT_EQ(o.integer("absent", 9), 9);
  EXPECT_THROW(o.integer("a", 0), ConfigError);
  EXPECT_THROW(o.finish(), ConfigError);  // nobody asked for "o"
  EXPECT_EQ(o.object("o").integer("k", 0), 1);
  EXPECT_NO_THROW(o.finish());
  EXPECT_THROW(Options("{", "test"), ConfigError);
  EXPECT_THROW(Options("[]", "test"), ConfigError);
}

}  // namespace
}  // namespace mixpl
