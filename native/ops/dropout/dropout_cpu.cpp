#include <algorithm>

#include "core/parallel.h"
#include "core/simd.h"
#include "ops/dropout/dropout.h"
#include "ops/dropout/dropout_math.h"

namespace mixpl::cpu {
namespace {

constexpr int64_t kGrain = 1 << 13;
constexpr int64_t kWords = 512;  // drawn at once, so that the loop over blocks runs in vectors

MIXPL_CPU_CLONES void draw(const Philox& random, uint64_t first_block, uint32_t* __restrict words) {
  const Philox own = random;
  for (int64_t b = 0; b < kWords / 4; ++b) {
    const auto block = own.block(first_block + b);
    for (int k = 0; k < 4; ++k) words[4 * b + k] = block[k];
  }
}

template <typename T>
void drop_each(const DropoutMask& mask, const T* x, T* y, int64_t begin, int64_t end) {
  alignas(64) uint32_t words[kWords];
  for (int64_t i = begin; i < end;) {
    const int64_t piece = i / kWords * kWords, stop = std::min(end, piece + kWords);
    draw(mask.random, static_cast<uint64_t>(piece / 4), words);
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
