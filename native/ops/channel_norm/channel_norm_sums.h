// How images are cut into chunks of rows on the CPU, and sums of their columns.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "core/parallel.h"
#include "ops/channel_norm/channel_norm.h"
#include "ops/channel_norm/channel_norm_rows.h"

namespace mixpl::cpu::channel_norm {

// Pixels per partial sum. Fixed, so the order of additions does not depend on threads.
constexpr int64_t kChunk = 256;
// Rows that are added in f32, their sums in f64.
constexpr int64_t kRun = 32;
// Values that are worth a thread of their own.
constexpr int64_t kGrain = 1 << 15;
// Bytes of the largest image that a core's share of all caches holds.
constexpr int64_t kCachedImage = 2 << 20;
// Values of a row, at least, if pixels side by side can make it so.
constexpr int64_t kRowValues = 64;

inline int64_t chunks_of(const NormView& view) { return (view.pixels + kChunk - 1) / kChunk; }

/// f(chunk, first pixel, pixels) over the chunks of an image.
template <typename F>
void for_each_chunk(const NormView& view, F&& f) {
  const int64_t grain = std::max<int64_t>(1, kGrain / (kChunk * view.channels));
  parallel_for(chunks_of(view), grain, [&](int64_t chunk) {
    const int64_t first = chunk * kChunk;
    f(chunk, first, std::min(kChunk, view.pixels - first));
  });
}

/// Whether an image, of which `element` bytes a value are read, stays in a cache between passes.
inline bool is_cached(const NormView& view, int64_t element) {
  return view.pixels * view.channels * element <= kCachedImage;
}

/// Numbers from the start of a cache line on, 0 at first. Their memory stays with the thread for
/// the next ones: small images would wait for it as long as for their values.
template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t count) {
    if (!spare().empty()) {
      lines_ = std::move(spare().back());
      spare().pop_back();
    }
    lines_.assign((count + kPerLine - 1) / kPerLine, Line{});
  }
  Scratch(Scratch&&) = default;
  ~Scratch() {
    if (lines_.capacity() > 0 && lines_.capacity() <= kMostLines)
      spare().push_back(std::move(lines_));
  }
  T* data() { return lines_.data()->values; }
  const T* data() const { return lines_.data()->values; }
  T& operator[](int64_t i) { return data()[i]; }
  T operator[](int64_t i) const { return data()[i]; }

 private:
  static constexpr int64_t kPerLine = 64 / sizeof(T);
  static constexpr size_t kMostLines = 1024;
  struct alignas(64) Line {
    T values[kPerLine];
  };
  static std::vector<std::vector<Line>>& spare() {
    static thread_local std::vector<std::vector<Line>> kept;
    return kept;
  }
  std::vector<Line> lines_;
};

/// How pixels make rows: those with few channels lie side by side.
struct RowShape {
  int64_t channels, group_size, side_by_side, width;
  bool cached;
  RowShape(const NormView& view, int64_t element)
      : channels(view.channels),
        group_size(view.group_size()),
        side_by_side(std::max<int64_t>(1, kRowValues / channels)),
        width(side_by_side * channels),
        cached(is_cached(view, element)) {}

  /// f(first value, block) over `pixels` pixels: whole rows, `at_once` or fewer, then a shorter
  /// one.
  template <typename F>
  void for_each(int64_t pixels, int64_t at_once, F&& f) const {
    const int64_t rows = pixels / side_by_side, rest = pixels % side_by_side;
    for (int64_t row = 0; row < rows; row += at_once)
      f(row * width, RowBlock{std::min(at_once, rows - row), width, cached});
    if (rest) f(rows * width, RowBlock{1, rest * channels, cached});
  }
  /// A value for each column: of(channel, its group).
  template <typename F>
  Scratch<float> table(F&& of) const {
    Scratch<float> values(width);
    for (int64_t c = 0, g = 0; c < channels; ++g)
      for (const int64_t end = c + group_size; c < end; ++c) values[c] = of(c, g);
    for (int64_t i = channels; i < width; ++i) values[i] = values[i - channels];
    return values;
  }
};

/// Two numbers of every channel and chunk of an image: [chunk][2][channels].
struct ChunkSums {
  int64_t chunks, channels;
  Scratch<double> values;
  explicit ChunkSums(const NormView& view)
      : chunks(chunks_of(view)), channels(view.channels), values(chunks * 2 * channels) {}

  double* first(int64_t chunk) { return values.data() + chunk * 2 * channels; }
  double* second(int64_t chunk) { return first(chunk) + channels; }
  /// f(chunk, c, first, second) of each, chunk by chunk.
  template <typename F>
  void for_each(F&& f) const {
    for (int64_t k = 0; k < chunks; ++k) {
      const double* at = values.data() + k * 2 * channels;
      for (int64_t c = 0; c < channels; ++c) f(k, c, at[c], at[channels + c]);
    }
  }
};

/// Two sums of every channel over pixels, in f64: [2][channels]. add(first value, block, first,
/// second) adds those of a block to a value a column.
template <typename F>
Scratch<double> sums_over(const RowShape& shape, int64_t pixels, F&& add) {
  const int64_t channels = shape.channels, pitch = (shape.width + 15) / 16 * 16;
  Scratch<float> run(2 * pitch);
  Scratch<double> sums(2 * channels);
  shape.for_each(pixels, kRun, [&](int64_t value, RowBlock block) {
    std::fill_n(run.data(), 2 * pitch, 0.0f);
    add(value, block, run.data(), run.data() + pitch);
    for (int half = 0; half < 2; ++half)
      for (int64_t at = 0; at < block.width; at += channels) {
        const float* from = run.data() + half * pitch + at;
        double* to = sums.data() + half * channels;
        for (int64_t c = 0; c < channels; ++c) to[c] += from[c];
      }
  });
  return sums;
}

}  // namespace mixpl::cpu::channel_norm
