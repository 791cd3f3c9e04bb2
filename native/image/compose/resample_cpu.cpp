#include "image/compose/resample_cpu.h"

#include <algorithm>
#include <cmath>

#include "image/compose/compose_math.h"
#include "image/compose/pixel_cpu.h"

namespace mixpl::cpu {
namespace {

constexpr int kBlock = 64;  // pixels whose coordinates are computed together

// Positions x in [0, count) with low <= slope * x + start < high, one less at either end so that
// rounding does not matter; the pixels left out take the careful path, which gives the same values.
Span safe_span(double slope, double start, double low, double high, int count) {
  if (!(low < high)) return {};
  if (slope == 0) return start >= low && start < high ? Span{0, count} : Span{};
  double from = (low - start) / slope, to = (high - start) / slope;
  if (slope < 0) std::swap(from, to);
  const auto whole = [count](double v) {
    return static_cast<int>(std::clamp(v, 0.0, static_cast<double>(count)));
  };
  return {whole(std::ceil(from) + 1), whole(std::floor(to) - 1)};
}

template <int kTaps, bool kSwap>
void filter_columns(const uint8_t* from, const Axis& axis, float* to) {
  const int count = axis.inside.end - axis.inside.begin;
  const int taps = kTaps > 0 ? kTaps : axis.taps;
  const int* first = axis.first.data();
  const float* w = axis.weights.data();
  for (int i = 0; i < count; ++i, w += taps, to += 3) {
    const uint8_t* p = from + 3 * first[i];
    Pixel sum = w[0] * load_pixel(p);
    for (int k = 1; k < taps; ++k) sum += w[k] * load_pixel(p + 3 * k);
    store_pixel(to, ordered<kSwap>(sum));
  }
}

template <bool kSwap>
void filter_columns(const uint8_t* from, const Axis& axis, float* to) {
  if (axis.shifts && !kSwap) {
    const int count = 3 * (axis.inside.end - axis.inside.begin);
    from += 3 * axis.first[0];
    for (int i = 0; i < count; ++i) to[i] = from[i];
    return;
  }
  switch (axis.taps) {
    case 1:
      return filter_columns<1, kSwap>(from, axis, to);
    case 2:
      return filter_columns<2, kSwap>(from, axis, to);
    case 3:
      return filter_columns<3, kSwap>(from, axis, to);
    case 4:
      return filter_columns<4, kSwap>(from, axis, to);
    default:
      return filter_columns<0, kSwap>(from, axis, to);
  }
}

void fill_pixels(float* out, int begin, int end, const std::array<float, 3>& fill) {
  for (int x = begin; x < end; ++x)
    for (int c = 0; c < 3; ++c) out[3 * x + c] = fill[c];
}

}  // namespace

void RowSampler::start(const Sampling& sampling) {
  s_ = &sampling;
  padded_ready_ = false;
  if (sampling.aligned) {
    stride_ = size_t(sampling.width) * 3 + kRowSlack;
    ring_.resize(stride_ * sampling.rows.taps);
    ring_row_.assign(sampling.rows.taps, -1);
  } else if (sampling.samples > 1) {
    sums_.resize(size_t(sampling.width) * 4);
  }
}

const uint8_t* RowSampler::bytes(int y) const {
  const Axis &rows = s_->rows, &columns = s_->columns;
  if (!s_->aligned || s_->bgr || !rows.shifts || !columns.shifts || y < rows.inside.begin ||
      y >= rows.inside.end || columns.inside.begin > 0 || columns.inside.end < s_->width)
    return nullptr;
  const int64_t source_row = rows.first[y - rows.inside.begin];
  return s_->source.data + 3 * (source_row * s_->source.width + columns.first[0]);
}

Span RowSampler::row(int y, float* out) {
  return s_->aligned ? aligned_row(y, out) : sampled_row(y, out);
}

// The source row after the horizontal pass; rows that the next call needs, too, stay in the ring.
const float* RowSampler::filtered(int source_row) {
  const size_t slot = static_cast<size_t>(source_row) % ring_row_.size();
  float* to = ring_.data() + slot * stride_;
  if (ring_row_[slot] == source_row) return to;
  ring_row_[slot] = source_row;
  const size_t bytes = size_t(s_->source.width) * 3;
  const uint8_t* from = s_->source.data + bytes * source_row;
  if (source_row == s_->source.height - 1) {
    if (!padded_ready_) {
      padded_.assign(from, from + bytes);
      padded_.resize(bytes + 4, 0);
      padded_ready_ = true;
    }
    from = padded_.data();
  }
  float* first = to + 3 * s_->columns.inside.begin;
  if (s_->bgr)
    filter_columns<true>(from, s_->columns, first);
  else
    filter_columns<false>(from, s_->columns, first);
  return to;
}

Span RowSampler::aligned_row(int y, float* out) {
  const Axis &rows = s_->rows, &columns = s_->columns;
  if (y < rows.inside.begin || y >= rows.inside.end || columns.inside.empty()) {
    fill_pixels(out, 0, s_->width, s_->fill);
    return {};
  }
  const int i = y - rows.inside.begin, base = rows.first[i];
  const float* w = rows.weights.data() + size_t(i) * rows.taps;
  const int from = 3 * columns.inside.begin, to = 3 * columns.inside.end;
  // Pairs of rows: half the passes over `out`.
  for (int k = 0; k < rows.taps; k += 2) {
    if (k > 0 && w[k] == 0 && (k + 1 == rows.taps || w[k + 1] == 0)) continue;
    const float* a = filtered(base + k);
    const float wa = w[k];
    if (k + 1 == rows.taps || w[k + 1] == 0) {
      if (k == 0)
        for (int j = from; j < to; ++j) out[j] = wa * a[j];
      else
        for (int j = from; j < to; ++j) out[j] += wa * a[j];
      continue;
    }
    const float* b = filtered(base + k + 1);
    const float wb = w[k + 1];
    if (k == 0)
      for (int j = from; j < to; ++j) out[j] = wa * a[j] + wb * b[j];
    else
      for (int j = from; j < to; ++j) out[j] += wa * a[j] + wb * b[j];
  }
  fill_pixels(out, 0, columns.inside.begin, s_->fill);
  fill_pixels(out, columns.inside.end, s_->width, s_->fill);
  return columns.inside;
}

// put(x, value) for one sample of every pixel of a row, in order: at x + x_offset in the pixel's
// column, at py.
template <typename Put>
void RowSampler::sample(double x_offset, double py, Put&& put) {
  const Sampling& s = *s_;
  const auto& m = s.map;
  const int width = s.source.width, height = s.source.height;
  const double u0 = m[1] * py + m[2], v0 = m[4] * py + m[5], start = s.x1 + x_offset;
  Span fast{};
  if (s.affine && width >= 3 && height >= 2) {
    // All four neighbours exist, and two bytes beyond the right one, too.
    const Span a = safe_span(m[0], m[0] * start + u0 - 0.5, 0, width - 2.0, s.width);
    const Span b = safe_span(m[3], m[3] * start + v0 - 0.5, 0, height - 1.0, s.width);
    fast = {std::max(a.begin, b.begin), std::min(a.end, b.end)};
    if (fast.empty()) fast = {};
  }
  const auto careful = [&](int begin, int end) {
    for (int x = begin; x < end; ++x) {
      const SourcePoint p = map_point(m.data(), x + start, py);
      float rgb[3] = {s.fill[0], s.fill[1], s.fill[2]};
      if (on_source(p, width, height)) {
        sample_bilinear(s.source.data, width, height, p, rgb);
        if (s.bgr) std::swap(rgb[0], rgb[2]);
        hits_ = {std::min(hits_.begin, x), std::max(hits_.end, x + 1)};
      }
      put(x, Pixel{rgb[0], rgb[1], rgb[2], 0});
    }
  };
  careful(0, fast.begin);
  if (!fast.empty()) hits_ = {std::min(hits_.begin, fast.begin), std::max(hits_.end, fast.end)};
  int32_t x0[kBlock], y0[kBlock];
  float a[kBlock], b[kBlock];
  const int64_t row_bytes = int64_t{3} * width;
  for (int x = fast.begin; x < fast.end; x += kBlock) {
    const int count = std::min(kBlock, fast.end - x);
    for (int i = 0; i < count; ++i) {
      const double px = x + i + start;
      const double fu = (m[0] * px + u0) - 0.5, fv = (m[3] * px + v0) - 0.5;
      // Limited once more: no rounding of an odd map may lead outside.
      const double bu = limited(std::floor(fu), 0, width - 3);
      const double bv = limited(std::floor(fv), 0, height - 2);
      x0[i] = static_cast<int32_t>(bu);
      y0[i] = static_cast<int32_t>(bv);
      a[i] = static_cast<float>(fu - bu);
      b[i] = static_cast<float>(fv - bv);
    }
    for (int i = 0; i < count; ++i) {
      const uint8_t* upper = s.source.data + row_bytes * y0[i] + 3 * x0[i];
      const Pixel value = blend_pixels(upper, upper + row_bytes, a[i], b[i]);
      put(x + i, s.bgr ? ordered<true>(value) : value);
    }
  }
  careful(std::max(fast.begin, fast.end), s.width);
}

Span RowSampler::sampled_row(int y, float* out) {
  const Sampling& s = *s_;
  const int n = s.samples;
  hits_ = {s.width, 0};
  if (n == 1) {
    sample(0.5, s.y1 + y + 0.5, [out](int x, Pixel value) { store_pixel(out + 3 * x, value); });
    return hits_.empty() ? Span{} : hits_;
  }
  std::fill(sums_.begin(), sums_.end(), 0.0f);
  const auto add = [sums = sums_.data()](int x, Pixel value) {
    store_pixel(sums + 4 * x, read_pixel(sums + 4 * x) + value);
  };
  for (int sy = 0; sy < n; ++sy)
    for (int sx = 0; sx < n; ++sx) sample((sx + 0.5) / n, s.y1 + y + (sy + 0.5) / n, add);
  const float share = 1.0f / static_cast<float>(n * n);
  for (int x = 0; x < s.width; ++x)
    store_pixel(out + 3 * size_t(x), share * read_pixel(&sums_[4 * size_t(x)]));
  return hits_.empty() ? Span{} : hits_;
}

}  // namespace mixpl::cpu
