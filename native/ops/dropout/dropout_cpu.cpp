#include <algorithm>
#include <cstring>

#include "core/parallel.h"
#include "core/simd.h"
#include "ops/dropout/dropout.h"
#include "ops/dropout/dropout_math.h"

namespace mixpl::cpu {
namespace {

constexpr int64_t kGrain = 1 << 13;
using simd::i32x8;

constexpr int64_t kWords = 512;  // drawn at once

#if defined(__AVX2__)
// Four blocks of words, a 64-bit lane for each: what a product leaves above a word's 32 bits, the
// next product does not read.
void draw_four(const Philox& random, uint64_t first_block, uint32_t* words) {
  const auto all = [](uint64_t v) { return _mm256_set1_epi64x(static_cast<int64_t>(v)); };
  const __m256i counter = _mm256_add_epi64(all(first_block), _mm256_setr_epi64x(0, 1, 2, 3));
  __m256i c0 = counter, c1 = _mm256_srli_epi64(counter, 32);
  __m256i c2 = all(random.stream), c3 = all(random.stream >> 32);
  uint32_t k0 = static_cast<uint32_t>(random.seed), k1 = static_cast<uint32_t>(random.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const __m256i p0 = _mm256_mul_epu32(c0, all(0xD2511F53u));
    const __m256i p1 = _mm256_mul_epu32(c2, all(0xCD9E8D57u));
    c0 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p1, 32), c1), all(k0));
    c2 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p0, 32), c3), all(k1));
    c1 = p1;
    c3 = p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  // The odd words beside the even ones, then the blocks one after another.
  const __m256i first = _mm256_blend_epi32(c0, _mm256_slli_epi64(c1, 32), 0xaa);
  const __m256i second = _mm256_blend_epi32(c2, _mm256_slli_epi64(c3, 32), 0xaa);
  const __m256i even = _mm256_unpacklo_epi64(first, second);
  const __m256i odd = _mm256_unpackhi_epi64(first, second);
  auto* out = reinterpret_cast<__m256i*>(words);
  _mm256_storeu_si256(out, _mm256_permute2x128_si256(even, odd, 0x20));
  _mm256_storeu_si256(out + 1, _mm256_permute2x128_si256(even, odd, 0x31));
}
#else
void draw_four(const Philox& random, uint64_t first_block, uint32_t* words) {
  for (int b = 0; b < 4; ++b) {
    const auto block = random.block(first_block + b);
    for (int k = 0; k < 4; ++k) words[4 * b + k] = block[k];
  }
}
#endif

// y may be x.
template <typename T>
void drop_each(const DropoutMask& mask, const T* x, T* y, int64_t begin, int64_t end) {
  alignas(32) uint32_t words[kWords];
  // Unsigned numbers in the order of signed ones.
  const int32_t least = static_cast<int32_t>(mask.threshold ^ 0x80000000u);
  for (int64_t i = begin; i < end;) {
    const int64_t piece = i / kWords * kWords, stop = std::min(end, piece + kWords);
    for (int64_t w = 0; w < stop - piece; w += 16)
      draw_four(mask.random, static_cast<uint64_t>((piece + w) / 4), words + w);
    for (; i + 8 <= stop; i += 8) {
      simd::u32x8 word;
      std::memcpy(&word, words + (i - piece), sizeof word);
      const i32x8 keeps = (i32x8)(word ^ 0x80000000u) >= least;
      simd::store(y + i, simd::keep(keeps, simd::load(x + i) * mask.scale));
    }
    for (; i < stop; ++i) y[i] = T(mask.apply(float(x[i]), words[i - piece]));
  }
}

}  // namespace

void dropout_apply(const Tensor& x, float p, const Philox& random, int64_t run, Tensor& y) {
  const DropoutMask mask = DropoutMask::of(p, random);
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_chunks(x.numel(), kGrain, [&](int64_t begin, int64_t end) {
      if (run == 1) return drop_each(mask, in, out, begin, end);
      for (int64_t i = begin; i < end;) {
        const int64_t sample = i / run, stop = std::min(end, (sample + 1) * run);
        if (mask.word(static_cast<uint64_t>(sample)) < mask.threshold)
          std::fill(out + i, out + stop, T(0.0f));
        else
          simd::scale(in + i, mask.scale, out + i, stop - i);
        i = stop;
      }
    });
  });
}

}  // namespace mixpl::cpu
