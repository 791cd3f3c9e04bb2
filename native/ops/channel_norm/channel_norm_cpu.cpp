// Two passes over each image: sums, then what they give. The second goes backwards, so that it
// begins with what the first has left in the caches.
#include <algorithm>
#include <vector>

#include "core/avx512.h"
#include "core/parallel.h"
#include "ops/channel_norm/channel_norm.h"
#include "ops/channel_norm/channel_norm_rows.h"

namespace mixpl::cpu {
namespace {

using namespace channel_norm;

// Pixels per partial sum. Fixed, so the order of additions does not depend on threads.
constexpr int64_t kChunk = 256;
// Values that are worth a thread of their own.
constexpr int64_t kGrain = 1 << 15;
// Images of at most so many bytes stay in a core's cache between the passes.
constexpr int64_t kCachedImage = 512 << 10;
// A core's share of all caches holds images of so many bytes: a thread takes whole ones, and waits
// for others once.
constexpr int64_t kOwnImage = 2 << 20;
// Outputs of so many bytes are in no cache when they are read, so they need not go through one.
constexpr int64_t kStreamed = 24 << 20;
// Values of a row, at least, if pixels side by side can make it so.
constexpr int64_t kRowValues = 64;

template <typename T>
const RowLoops<T>& row_loops() {
#if defined(__x86_64__)
  // bf16 needs the instructions that round to it.
  const bool wide = dtype_of<T>() == DType::bf16 ? has_avx512_bf16() : has_avx512();
  return wide ? avx512_loops<T>() : avx2_loops<T>();
#else
  return portable_loops<T>();
#endif
}

int64_t chunks_of(const NormView& view) { return (view.pixels + kChunk - 1) / kChunk; }

/// f(chunk, first pixel, pixels) over the chunks of an image, from the last to the first of each
/// thread if `backwards`.
template <typename F>
void for_each_chunk(const NormView& view, bool backwards, F&& f) {
  const int64_t grain = std::max<int64_t>(1, kGrain / (kChunk * view.channels));
  parallel_chunks(chunks_of(view), grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t chunk = backwards ? begin + end - 1 - i : i, first = chunk * kChunk;
      f(chunk, first, std::min(kChunk, view.pixels - first));
    }
  });
}

int64_t bytes_of_image(const NormView& view, int64_t element) {
  return view.pixels * view.channels * element;
}

/// f(image), of which `element` bytes a value are read: small images side by side, large ones and
/// what is left over one after another, their chunks side by side.
template <typename F>
void for_each_image(const NormView& view, int64_t element, F&& f) {
  const int64_t values = std::max<int64_t>(view.pixels * view.channels, 1);
  const bool own = bytes_of_image(view, element) <= kOwnImage;
  const int64_t side_by_side = own ? view.images / num_threads() * num_threads() : 0;
  parallel_for(side_by_side, std::max<int64_t>(1, kGrain / values), f);
  for (int64_t i = side_by_side; i < view.images; ++i) f(i);
}

/// Numbers from the start of a cache line on, 0 at first: loops read and write them by registers.
class Lines {
 public:
  Lines() = default;
  explicit Lines(int64_t count) : lines_((count + kFloats - 1) / kFloats) {}
  float* data() { return lines_.data()->values; }
  const float* data() const { return lines_.data()->values; }
  float& operator[](int64_t i) { return data()[i]; }
  float operator[](int64_t i) const { return data()[i]; }

 private:
  static constexpr int64_t kFloats = 16;
  struct alignas(64) Line {
    float values[kFloats] = {};
  };
  std::vector<Line> lines_;
};

/// How pixels make rows: those with few channels lie side by side.
struct RowShape {
  int64_t channels, side_by_side, width;
  bool cached;
  RowShape(const NormView& view, int64_t element)
      : channels(view.channels),
        side_by_side(std::max<int64_t>(1, kRowValues / channels)),
        width(side_by_side * channels),
        cached(bytes_of_image(view, element) <= kCachedImage) {}

  /// f(first value, block) over `pixels` pixels: whole rows, then a shorter one.
  template <typename F>
  void for_each(int64_t pixels, F&& f) const {
    const int64_t rows = pixels / side_by_side, rest = pixels % side_by_side;
    if (rows) f(int64_t{0}, RowBlock{rows, width, cached});
    if (rest) f(rows * width, RowBlock{1, rest * channels, cached});
  }
  /// The value of each column, from that of each channel.
  template <typename F>
  Lines table(F&& of_channel) const {
    Lines values(width);
    for (int64_t c = 0; c < channels; ++c) values[c] = of_channel(c);
    for (int64_t i = channels; i < width; ++i) values[i] = values[i - channels];
    return values;
  }
  /// Columns of one channel added up, in place.
  void fold(float* sums) const {
    for (int64_t i = channels; i < width; ++i) sums[i % channels] += sums[i];
  }
};

/// The map of one image, a constant a column.
struct ImageTable {
  Lines mean, scale, shift;
  ImageTable(const NormForward& f, const RowShape& shape, int64_t image) {
    const int64_t size = f.view.group_size(), first = image * f.view.groups;
    const float *m = f.mean.data<float>() + first, *r = f.rstd.data<float>() + first;
    const float *gamma = f.gamma.data<float>(), *beta = f.beta.data<float>();
    mean = shape.table([&](int64_t c) { return m[c / size]; });
    scale = shape.table([&](int64_t c) { return r[c / size] * gamma[c]; });
    shift = shape.table([&](int64_t c) { return beta[c]; });
  }
};

/// Two sums of every channel and chunk of an image: [chunk][2][pitch], the first `channels` of
/// each pitch.
struct ChunkSums {
  int64_t chunks, channels, pitch;
  Lines values;
  ChunkSums(const NormView& view, const RowShape& shape)
      : chunks(chunks_of(view)),
        channels(view.channels),
        pitch((shape.width + 15) / 16 * 16),
        values(chunks * 2 * pitch) {}

  float* first(int64_t chunk) { return values.data() + chunk * 2 * pitch; }
  float* second(int64_t chunk) { return first(chunk) + pitch; }
  /// f(chunk, c, first, second) of each, chunk by chunk.
  template <typename F>
  void for_each(F&& f) const {
    for (int64_t k = 0; k < chunks; ++k) {
      const float* at = values.data() + k * 2 * pitch;
      for (int64_t c = 0; c < channels; ++c) f(k, c, at[c], at[pitch + c]);
    }
  }
};

/// Of each channel and chunk the mean's distance from the first pixel's value, and the centred
/// second moment.
template <typename T>
ChunkSums chunk_moments(const NormView& view, const T* image) {
  const RowShape shape(view, sizeof(T));
  const RowLoops<T>& loops = row_loops<T>();
  ChunkSums moments(view, shape);
  for_each_chunk(view, false, [&](int64_t chunk, int64_t first, int64_t pixels) {
    const T* x = image + first * view.channels;
    const Lines shift = shape.table([&](int64_t c) { return float(x[c]); });
    float *mean = moments.first(chunk), *m2 = moments.second(chunk);
    shape.for_each(pixels, [&](int64_t value, RowBlock block) {
      loops.moments(x + value, shift.data(), block, mean, m2);
    });
    shape.fold(mean);
    shape.fold(m2);
    const float inverse = 1.0f / static_cast<float>(pixels);
    for (int64_t c = 0; c < view.channels; ++c) {
      const float distance = mean[c] * inverse;
      m2[c] = std::max(0.0f, m2[c] - mean[c] * distance);
      mean[c] = distance;
    }
  });
  return moments;
}

/// Mean and variance of each group of one image. What belongs to a chunk is f32 but for the place
/// that it is told from: a large mean costs no digits.
template <typename T>
void image_moments(const NormView& view, const T* image, float* mean, float* variance) {
  const ChunkSums moments = chunk_moments(view, image);
  const int64_t channels = view.channels, size = view.group_size();
  const double count = static_cast<double>(view.pixels) * static_cast<double>(size);
  const auto weight = [&](int64_t chunk) {
    return static_cast<double>(std::min(kChunk, view.pixels - chunk * kChunk));
  };
  const auto mean_of = [&](int64_t chunk, int64_t c, float distance) {
    return double{float(image[chunk * kChunk * channels + c])} + distance;
  };
  std::vector<double> sum(channels, 0.0), center(channels);
  moments.for_each([&](int64_t chunk, int64_t c, float distance, float) {
    sum[c] += weight(chunk) * mean_of(chunk, c, distance);
  });
  for (int64_t g = 0; g < view.groups; ++g) {
    double total = 0;
    for (int64_t c = g * size; c < (g + 1) * size; ++c) total += sum[c];
    std::fill_n(center.begin() + g * size, size, total / count);
    mean[g] = static_cast<float>(total / count);
  }
  std::fill(sum.begin(), sum.end(), 0.0);
  moments.for_each([&](int64_t chunk, int64_t c, float distance, float m2) {
    const double d = mean_of(chunk, c, distance) - center[c];
    sum[c] += m2 + weight(chunk) * d * d;
  });
  for (int64_t g = 0; g < view.groups; ++g) {
    double total = 0;
    for (int64_t c = g * size; c < (g + 1) * size; ++c) total += sum[c];
    variance[g] = static_cast<float>(total / count);
  }
}

/// Whether `out` may go past the caches: not where it is read as it is written.
template <typename T>
bool streams(const NormView& view, const T* out) {
  constexpr int64_t kLine = 64;
  const int64_t pixel = view.channels * int64_t{sizeof(T)};
  return view.images * view.pixels * pixel >= kStreamed && pixel % kLine == 0 &&
         reinterpret_cast<uintptr_t>(out) % kLine == 0;
}

template <typename T>
void image_forward(const NormForward& f, int64_t image, Tensor& y) {
  const NormView& view = f.view;
  const RowShape shape(view, sizeof(T));
  const RowLoops<T>& loops = row_loops<T>();
  const ImageTable table(f, shape, image);
  ForwardRows<T> all{};
  all.mean = table.mean.data();
  all.scale = table.scale.data();
  all.shift = table.shift.data();
  all.relu = f.relu;
  all.streams = streams(view, y.data<T>());
  for_each_chunk(view, true, [&](int64_t, int64_t first, int64_t pixels) {
    shape.for_each(pixels, [&](int64_t value, RowBlock block) {
      const int64_t at = (image * view.pixels + first) * view.channels + value;
      ForwardRows<T> part = all;
      part.x = f.x.data<T>() + at;
      part.residual = f.residual.defined() ? f.residual.data<T>() + at : nullptr;
      part.y = y.data<T>() + at;
      loops.forward(part, block);
    });
  });
}

/// The way back through one image.
template <typename T>
class ImageBackward {
 public:
  ImageBackward(const NormBackward& norm, int64_t image)
      : norm_(norm),
        view_(norm.forward.view),
        shape_(view_, 2 * sizeof(T)),
        loops_(row_loops<T>()),
        table_(norm.forward, shape_, image),
        rstd_(norm.forward.rstd.data<float>() + image * view_.groups) {
    const int64_t at = image * view_.pixels * view_.channels;
    const auto part = [&](const Tensor& t) { return t.defined() ? t.data<T>() + at : nullptr; };
    rows_.x = part(norm.forward.x);
    rows_.dout = part(norm.dout);
    rows_.y = part(norm.y);
    rows_.dresidual = part(norm.dresidual);
    rows_.dx = part(norm.dx);
    rows_.mean = table_.mean.data();
    rows_.scale = table_.scale.data();
    rows_.shift = table_.shift.data();
    rows_.mask = !norm.forward.relu                ? NormMask::none
                 : norm.forward.residual.defined() ? NormMask::output
                                                   : NormMask::recompute;
  }

  /// Sums of g, then of g * (x - mean), of each channel: [2 C]. Writes dresidual.
  std::vector<double> sums() const {
    ChunkSums partial(view_, shape_);
    for_each_chunk(view_, false, [&](int64_t chunk, int64_t first, int64_t pixels) {
      float *sum = partial.first(chunk), *product = partial.second(chunk);
      shape_.for_each(pixels, [&](int64_t value, RowBlock block) {
        loops_.sums(at(rows_, first * view_.channels + value), block, sum, product);
      });
      shape_.fold(sum);
      shape_.fold(product);
    });
    std::vector<double> sums(2 * view_.channels, 0.0);
    double *sum = sums.data(), *product = sum + view_.channels;
    partial.for_each([&](int64_t, int64_t c, float s, float p) {
      sum[c] += s;
      product[c] += p;
    });
    return sums;
  }

  /// Writes dx, given sums(), which do not matter to statistics that are constants.
  void gradient(const std::vector<double>& sums) const {
    std::vector<NormSlopes> slopes(view_.groups, NormSlopes{0, 0});
    const int64_t size = view_.group_size();
    if (!norm_.fixed_stats) {
      const float* gamma = norm_.forward.gamma.data<float>();
      const double *sum = sums.data(), *product = sum + view_.channels;
      const double count = static_cast<double>(size) * static_cast<double>(view_.pixels);
      for (int64_t g = 0; g < view_.groups; ++g) {
        double sum_g = 0, sum_gd = 0;
        for (int64_t c = g * size; c < (g + 1) * size; ++c) {
          sum_g += gamma[c] * sum[c];
          sum_gd += gamma[c] * product[c];
        }
        slopes[g] = norm_slopes(rstd_[g], sum_g, sum_gd, count);
      }
    }
    const auto slope = shape_.table([&](int64_t c) { return slopes[c / size].slope; });
    const auto offset = shape_.table([&](int64_t c) { return slopes[c / size].offset; });
    BackwardRows<T> rows = rows_;
    rows.slope = slope.data();
    rows.offset = offset.data();
    if (rows.dresidual) {  // the masked gradient: no need to mask again
      rows.dout = rows.dresidual;
      rows.mask = NormMask::none;
    }
    rows.streams = rows.dx != rows.dout && streams(view_, rows.dx);
    for_each_chunk(view_, true, [&](int64_t, int64_t first, int64_t pixels) {
      shape_.for_each(pixels, [&](int64_t value, RowBlock block) {
        loops_.gradient(at(rows, first * view_.channels + value), block);
      });
    });
  }

  double rstd(int64_t channel) const { return rstd_[channel / view_.group_size()]; }

 private:
  static BackwardRows<T> at(BackwardRows<T> rows, int64_t value) {
    rows.x += value;
    rows.dout += value;
    if (rows.y) rows.y += value;
    if (rows.dresidual) rows.dresidual += value;
    if (rows.dx) rows.dx += value;
    return rows;
  }

  const NormBackward& norm_;
  const NormView view_;
  const RowShape shape_;
  const RowLoops<T>& loops_;
  const ImageTable table_;
  const float* rstd_;
  BackwardRows<T> rows_{};
};

template <typename T>
void backward(NormBackward& norm) {
  const NormView& view = norm.forward.view;
  const int64_t channels = view.channels;
  const bool live_dx = norm.dx.defined() && !norm.fixed_stats;
  const bool needs_sums =
      live_dx || norm.dgamma.defined() || norm.dbeta.defined() || norm.dresidual.defined();
  // Of each image dbeta, then dgamma.
  std::vector<double> parameters(view.images * 2 * channels, 0.0);
  for_each_image(view, 2 * sizeof(T), [&](int64_t i) {
    const ImageBackward<T> image(norm, i);
    std::vector<double> sums;
    if (needs_sums) sums = image.sums();
    if (norm.dx.defined()) image.gradient(sums);
    double* own = parameters.data() + i * 2 * channels;
    for (int64_t c = 0; needs_sums && c < channels; ++c) {
      own[c] = sums[c];
      own[channels + c] = sums[channels + c] * image.rstd(c);
    }
  });
  const auto put = [&](Tensor& gradient, int64_t offset) {
    if (!gradient.defined()) return;
    for (int64_t c = 0; c < channels; ++c) {
      double sum = 0;
      for (int64_t i = 0; i < view.images; ++i) sum += parameters[i * 2 * channels + offset + c];
      gradient.data<float>()[c] = static_cast<float>(sum);
    }
  };
  put(norm.dbeta, 0);
  put(norm.dgamma, channels);
}

}  // namespace

void norm_moments(const NormForward& f, Tensor& mean, Tensor& variance) {
  const NormView& view = f.view;
  dispatch_floating(f.x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_each_image(view, sizeof(T), [&](int64_t i) {
      image_moments(view, f.x.data<T>() + i * view.pixels * view.channels,
                    mean.data<float>() + i * view.groups, variance.data<float>() + i * view.groups);
    });
  });
}

void norm_rstd(float eps, Tensor& variance) {
  float* v = variance.data<float>();
  for (int64_t i = 0; i < variance.numel(); ++i) v[i] = rstd_of(v[i], eps);
}

void norm_forward(const NormForward& f, Tensor& y) {
  dispatch_floating(f.x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_each_image(f.view, sizeof(T), [&](int64_t i) { image_forward<T>(f, i, y); });
  });
}

void norm_by_image(const NormForward& f, float eps, Tensor& mean, Tensor& rstd, Tensor& y) {
  const NormView& view = f.view;
  dispatch_floating(f.x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_each_image(view, sizeof(T), [&](int64_t i) {
      float* r = rstd.data<float>() + i * view.groups;
      image_moments(view, f.x.data<T>() + i * view.pixels * view.channels,
                    mean.data<float>() + i * view.groups, r);
      for (int64_t g = 0; g < view.groups; ++g) r[g] = rstd_of(r[g], eps);
      image_forward<T>(f, i, y);
    });
  });
}

void norm_backward(NormBackward& norm) {
  dispatch_floating(norm.forward.x.dtype(), [&](auto tag) { backward<decltype(tag)>(norm); });
}

}  // namespace mixpl::cpu
