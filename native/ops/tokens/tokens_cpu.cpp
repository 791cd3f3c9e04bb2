#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "core/simd.h"
#include "ops/tokens/tokens.h"

namespace mixpl::cpu {
namespace {

constexpr int64_t kBlock = 1 << 16;  // bytes that are worth a thread of their own
constexpr int64_t kChunk = 256;      // tokens whose gradients are summed in f32

// copy(bytes of the part or null, bytes of the whole, their number) over blocks of all spans.
template <typename F>
void for_blocks(const std::vector<TokenSpan>& spans, const Tensor& whole, F&& copy) {
  const int64_t images = whole.size(0), token = whole.size(2) * size_of(whole.dtype());
  for (const TokenSpan& span : spans) {
    const int64_t run = span.count * token;  // of an image: without gaps in both
    if (run == 0) continue;
    char* const part = span.part.defined() ? static_cast<char*>(span.part.raw()) : nullptr;
    char* const base = static_cast<char*>(whole.raw()) + span.first * token;
    const int64_t blocks = (run + kBlock - 1) / kBlock;
    parallel_for(images * blocks, std::max<int64_t>(1, kBlock / run), [&](int64_t i) {
      const int64_t image = i / blocks, at = i % blocks * kBlock;
      copy(part ? part + image * run + at : nullptr, base + image * whole.size(1) * token + at,
           std::min(kBlock, run - at));
    });
  }
}

int64_t grain_of(const Tensor& x) {
  return std::max<int64_t>(1, kBlock / std::max<int64_t>(1, x.size(2) * size_of(x.dtype())));
}

}  // namespace

void write_spans(const std::vector<TokenSpan>& spans, Tensor& whole) {
  for_blocks(spans, whole, [](const char* part, char* whole, int64_t n) {
    if (part)
      std::memcpy(whole, part, n);
    else
      std::memset(whole, 0, n);
  });
}

void read_spans(const Tensor& whole, const std::vector<TokenSpan>& spans) {
  for_blocks(spans, whole,
             [](char* part, const char* whole, int64_t n) { std::memcpy(part, whole, n); });
}

void mask_tokens(const Tensor& x, const Tensor& mask, Tensor& y) {
  const int64_t token = x.size(2) * size_of(x.dtype());
  const auto* in = static_cast<const char*>(x.raw());
  const uint8_t* masked = mask.data<uint8_t>();
  auto* out = static_cast<char*>(y.raw());
  if (token == 0) return;
  parallel_for(mask.numel(), grain_of(x), [=](int64_t i) {
    if (masked[i])
      std::memset(out + i * token, 0, token);
    else
      std::memcpy(out + i * token, in + i * token, token);
  });
}

void add_level_rows_forward(const Tensor& x, const Tensor& rows, const Pyramid& levels, Tensor& y) {
  const int64_t channels = x.size(2);
  const float* row = rows.data<float>();
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_for(x.size(0) * x.size(1), grain_of(x), [=](int64_t i) {
      const float* b = row + levels.level_of(i % levels.count()) * channels;
      const T* from = in + i * channels;
      T* to = out + i * channels;
      int64_t k = 0;
      for (; k + simd::kWidth <= channels; k += simd::kWidth)
        simd::store(to + k, simd::load(from + k) + simd::load(b + k));
      for (; k < channels; ++k) to[k] = T(float(from[k]) + b[k]);
    });
  });
}

void add_level_rows_backward(const Tensor& dy, const Pyramid& levels, Tensor& drows) {
  const int64_t images = dy.size(0), tokens = dy.size(1), channels = dy.size(2);
  std::vector<int64_t> sizes;
  for (int l = 0; l < levels.levels; ++l) sizes.push_back((levels.size(l) + kChunk - 1) / kChunk);
  const Pyramid chunks(sizes);  // of an image: a chunk lies in one level
  const Tensor partial = Tensor::empty({images * chunks.count(), channels}, DType::f32);
  float* sums = partial.data<float>();
  dispatch_floating(dy.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* d = dy.data<T>();
    parallel_for(images * chunks.count(), int64_t{1}, [=](int64_t i) {
      const Place place = place_of(chunks, i);
      const int64_t begin = levels.first[place.level] + place.cell * kChunk;
      const int64_t end = std::min(begin + kChunk, levels.first[place.level + 1]);
      float* sum = sums + i * channels;
      std::fill_n(sum, channels, 0.0f);
      for (int64_t t = begin; t < end; ++t) {
        const T* from = d + (place.image * tokens + t) * channels;
        int64_t k = 0;
        for (; k + simd::kWidth <= channels; k += simd::kWidth)
          simd::store(sum + k, simd::load(sum + k) + simd::load(from + k));
        for (; k < channels; ++k) sum[k] += float(from[k]);
      }
    });
  });
  float* out = drows.data<float>();
  parallel_for(levels.levels, int64_t{1}, [&](int64_t level) {
    std::vector<double> total(channels, 0.0);
    for (int64_t image = 0; image < images; ++image)
      for (int64_t c = chunks.first[level]; c < chunks.first[level + 1]; ++c)
        for (int64_t k = 0; k < channels; ++k)
          total[k] += sums[(image * chunks.count() + c) * channels + k];
    for (int64_t k = 0; k < channels; ++k) out[level * channels + k] = static_cast<float>(total[k]);
  });
}

}  // namespace mixpl::cpu
