// Two passes over each image: sums, then what they give.
#include <algorithm>
#include <vector>

#include "core/avx512.h"
#include "core/parallel.h"
#include "ops/channel_norm/channel_norm.h"
#include "ops/channel_norm/channel_norm_rows.h"
#include "ops/channel_norm/channel_norm_sums.h"

namespace mixpl::cpu {
namespace {

using namespace channel_norm;

// Pixels, spread over a chunk, whose mean its values are told from. Of n, the squares are 1 + 1 / n
// times as large as about the true mean, and so is what cancels; of one, up to ten times.
constexpr int64_t kSamples = 8;
// Outputs of so many bytes are in no cache when they are read, so they need not go through one.
constexpr int64_t kStreamed = 24 << 20;

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

/// f(image), of which `element` bytes a value are read: small images side by side, so that threads
/// wait for each other once; large ones and what is left over one after another, their chunks side
/// by side.
template <typename F>
void for_each_image(const NormView& view, int64_t element, F&& f) {
  const int64_t values = std::max<int64_t>(view.pixels * view.channels, 1);
  const bool small = is_cached(view, element);
  const int64_t side_by_side = small ? view.images / num_threads() * num_threads() : 0;
  parallel_for(side_by_side, std::max<int64_t>(1, kGrain / values), f);
  for (int64_t i = side_by_side; i < view.images; ++i) f(i);
}

/// The map of one image, a constant a column.
struct ImageTable {
  Scratch<float> mean, scale, shift;
  ImageTable(const NormForward& f, const RowShape& shape, int64_t image)
      : ImageTable(shape, f.mean.data<float>() + image * f.view.groups,
                   f.rstd.data<float>() + image * f.view.groups, f.gamma.data<float>(),
                   f.beta.data<float>()) {}

 private:
  ImageTable(const RowShape& shape, const float* m, const float* rstd, const float* gamma,
             const float* beta)
      : mean(shape.table([=](int64_t, int64_t g) { return m[g]; })),
        scale(shape.table([=](int64_t c, int64_t g) { return rstd[g] * gamma[c]; })),
        shift(shape.table([=](int64_t c, int64_t) { return beta[c]; })) {}
};

/// Near the mean of each channel over a chunk of pixels, a number a column. In f64: neither large
/// values overflow, nor does a constant become another.
template <typename T>
Scratch<float> sample_mean(const T* x, int64_t pixels, const RowShape& shape) {
  const int64_t samples = std::min(kSamples, pixels);
  Scratch<double> sum(shape.channels);
  for (int64_t i = 0; i < samples; ++i) {
    const T* pixel = x + i * pixels / samples * shape.channels;
    for (int64_t c = 0; c < shape.channels; ++c) sum[c] += float(pixel[c]);
  }
  const double inverse = 1.0 / static_cast<double>(samples);
  return shape.table([&](int64_t c, int64_t) { return static_cast<float>(sum[c] * inverse); });
}

/// Mean and centred second moment of each channel and chunk of one image.
template <typename T>
ChunkSums chunk_moments(const NormView& view, const T* image) {
  const RowShape shape(view, sizeof(T));
  const RowLoops<T>& loops = row_loops<T>();
  ChunkSums moments(view);
  for_each_chunk(view, [&](int64_t chunk, int64_t first, int64_t pixels) {
    const T* x = image + first * view.channels;
    const Scratch<float> near = sample_mean(x, pixels, shape);
    const Scratch<double> sums =
        sums_over(shape, pixels, [&](int64_t value, RowBlock block, float* sum, float* square) {
          loops.moments(x + value, near.data(), block, sum, square);
        });
    const double inverse = 1.0 / static_cast<double>(pixels);
    double *mean = moments.first(chunk), *m2 = moments.second(chunk);
    for (int64_t c = 0; c < view.channels; ++c) {
      const double sum = sums[c], square = sums[view.channels + c];
      mean[c] = near[c] + sum * inverse;
      m2[c] = std::max(0.0, square - sum * sum * inverse);
    }
  });
  return moments;
}

/// Mean and variance of each group of one image.
template <typename T>
void image_moments(const NormView& view, const T* image, float* mean, float* variance) {
  const ChunkSums moments = chunk_moments(view, image);
  const int64_t channels = view.channels, size = view.group_size();
  const double count = static_cast<double>(view.pixels) * static_cast<double>(size);
  const auto weight = [&](int64_t chunk) {
    return static_cast<double>(std::min(kChunk, view.pixels - chunk * kChunk));
  };
  Scratch<double> sum(channels), center(channels);
  moments.for_each([&](int64_t chunk, int64_t c, double of_chunk, double) {
    sum[c] += weight(chunk) * of_chunk;
  });
  for (int64_t g = 0; g < view.groups; ++g) {
    double total = 0;
    for (int64_t c = g * size; c < (g + 1) * size; ++c) total += sum[c];
    std::fill_n(center.data() + g * size, size, total / count);
    mean[g] = static_cast<float>(total / count);
  }
  std::fill_n(sum.data(), channels, 0.0);
  moments.for_each([&](int64_t chunk, int64_t c, double of_chunk, double m2) {
    const double d = of_chunk - center[c];
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
  for_each_chunk(view, [&](int64_t, int64_t first, int64_t pixels) {
    shape.for_each(pixels, kChunk, [&](int64_t value, RowBlock block) {
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
  Scratch<double> sums() const {
    ChunkSums partial(view_);
    for_each_chunk(view_, [&](int64_t chunk, int64_t first, int64_t pixels) {
      const Scratch<double> sums =
          sums_over(shape_, pixels, [&](int64_t value, RowBlock block, float* sum, float* product) {
            loops_.sums(at(rows_, first * view_.channels + value), block, sum, product);
          });
      std::copy_n(sums.data(), 2 * view_.channels, partial.first(chunk));
    });
    Scratch<double> sums(2 * view_.channels);
    double *sum = sums.data(), *product = sum + view_.channels;
    partial.for_each([&](int64_t, int64_t c, double s, double p) {
      sum[c] += s;
      product[c] += p;
    });
    return sums;
  }

  /// Writes dx, given sums(), which do not matter to statistics that are constants.
  void gradient(const Scratch<double>& sums) const {
    Scratch<NormSlopes> slopes(view_.groups);
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
    const auto slope = shape_.table([&](int64_t, int64_t g) { return slopes[g].slope; });
    const auto offset = shape_.table([&](int64_t, int64_t g) { return slopes[g].offset; });
    BackwardRows<T> rows = rows_;
    rows.slope = slope.data();
    rows.offset = offset.data();
    if (rows.dresidual) {  // the masked gradient: no need to mask again
      rows.dout = rows.dresidual;
      rows.mask = NormMask::none;
    }
    rows.streams = rows.dx != rows.dout && streams(view_, rows.dx);
    for_each_chunk(view_, [&](int64_t, int64_t first, int64_t pixels) {
      shape_.for_each(pixels, kChunk, [&](int64_t value, RowBlock block) {
        loops_.gradient(at(rows, first * view_.channels + value), block);
      });
    });
  }

  /// From sums() this image's part of dbeta, then of dgamma: [2 C].
  void parameters(const Scratch<double>& sums, double* own) const {
    const int64_t channels = view_.channels;
    std::copy_n(sums.data(), channels, own);
    for (int64_t c = 0, g = 0; c < channels; ++g)
      for (const int64_t end = c + view_.group_size(); c < end; ++c)
        own[channels + c] = sums[channels + c] * rstd_[g];
  }

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
    const Scratch<double> sums = needs_sums ? image.sums() : Scratch<double>(2 * channels);
    if (norm.dx.defined()) image.gradient(sums);
    image.parameters(sums, parameters.data() + i * 2 * channels);
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
