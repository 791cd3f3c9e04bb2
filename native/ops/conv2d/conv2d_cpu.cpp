#include <algorithm>
#include <bit>

#include "core/blocks.h"
#include "core/onednn.h"
#include "core/parallel.h"
#include "core/part.h"
#include "core/tensor_values.h"
#include "ops/conv2d/conv2d.h"
#include "ops/conv2d/onednn_cpu.h"
#include "ops/conv2d/weight_gradient_cpu.h"
#include "ops/conv2d/winograd_cpu.h"

namespace mixpl::cpu {
namespace {

// Where the processor has no bf16 kernels: computes in f32 between two roundings.
bool needs_f32(const Tensor& t) { return t.dtype() == DType::bf16 && !onednn::has_bf16(); }
Tensor widened(const Tensor& t) { return t.defined() ? t.to(DType::f32) : t; }
void narrow(const Tensor& from, Tensor& to) {
  std::memcpy(to.raw(), from.to(DType::bf16).raw(), to.nbytes());
}

/// Adds what `make` puts into a tensor of its own.
template <class Make>
void add_to(Tensor& sum, Make&& make) {
  Tensor part = Tensor::empty_like(sum);
  make(part);
  add_values(part, sum);
}

// Nothing to convolve (no channels, or all padding): bias and residual remain.
void fill_without_input(const Tensor& bias, const Tensor& residual, bool relu, Tensor& y) {
  const int64_t k = y.size(3);
  const float* b = bias.defined() ? bias.data<float>() : nullptr;
  dispatch_floating(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* add = residual.defined() ? residual.data<T>() : nullptr;
    T* out = y.data<T>();
    for (int64_t i = 0; i < y.numel(); ++i) {
      const float sum = (b ? b[i % k] : 0.0f) + (add ? float(add[i]) : 0.0f);
      out[i] = T(relu && sum < 0 ? 0.0f : sum);
    }
  });
}

// y += residual, then ReLU. oneDNN 2.6 adds wrong numbers where it groups channels that fill no
// vector.
void add_after(const Tensor& residual, bool relu, Tensor& y) {
  const float* add = residual.data<float>();
  float* out = y.data<float>();
  parallel_for(y.numel(), [&](int64_t i) {
    const float sum = out[i] + add[i];
    out[i] = relu && sum < 0 ? 0.0f : sum;
  });
}

}  // namespace

void conv2d_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                    const Tensor& residual, const Conv2dOptions& o, Tensor& y) {
  if (y.numel() == 0) return;
  if (x.numel() == 0) return fill_without_input(bias, residual, o.relu, y);
  const bool apart = o.groups > 1 && residual.defined();  // and rounded once
  if (needs_f32(x) || (apart && x.dtype() == DType::bf16)) {
    Tensor wide = Tensor::empty(y.shape(), DType::f32);
    conv2d_forward(widened(x), weight.to(DType::bf16).to(DType::f32), bias, widened(residual), o,
                   wide);
    return narrow(wide, y);
  }
  if (weight.dtype() == DType::f32 &&
      winograd_pays(x.shape(), weight.shape(), y.shape(), o, x.dtype()))
    return winograd_forward(x, weight, bias, residual, o, y);
  if (apart) {
    Conv2dOptions plain = o;
    plain.relu = false;
    onednn_forward(x, weight, bias, Tensor(), plain, y);
    return add_after(residual, o.relu, y);
  }
  onednn_forward(x, weight, bias, residual, o, y);
}

namespace {
// A gradient larger than that, in bytes, is made in parts where it is made beside another tensor of
// its size: the sum that it is added to, or oneDNN's order of it.
constexpr int64_t kMostBeside = 16 << 20;
constexpr int64_t kFewestFilters = 64;  // of a part, so that x is not read for a few alone
}  // namespace

void conv2d_backward_data(const Tensor& dy, const Tensor& weight, const Conv2dOptions& o,
                          Tensor& dx, bool add, const Tensor& mask) {
  if (dx.numel() == 0) return;
  if (mask.defined()) {
    conv2d_backward_data(dy, weight, o, dx, add);
    Tensor no_sums;
    return mask_and_column_sum(mask, dx, dx, no_sums);
  }
  if (add && dy.numel() == 0) return;
  if (add) {
    // By image, where one is large.
    const int64_t images = dx.nbytes() > kMostBeside ? dx.size(0) : 1;
    const auto part = [&](const Tensor& t, int64_t i) {
      return part_of(t, i * t.nbytes() / images,
                     {t.size(0) / images, t.size(1), t.size(2), t.size(3)}, t.dtype());
    };
    for (int64_t i = 0; i < images; ++i) {
      Tensor sum = part(dx, i), own = Tensor::empty_like(sum);
      conv2d_backward_data(part(dy, i), weight, o, own);
      add_values(own, sum);
    }
    return;
  }
  if (dy.numel() == 0) {
    std::memset(dx.raw(), 0, dx.nbytes());
    return;
  }
  if (needs_f32(dy)) {
    Tensor wide = Tensor::empty(dx.shape(), DType::f32);
    conv2d_backward_data(widened(dy), weight.to(DType::bf16).to(DType::f32), o, wide);
    return narrow(wide, dx);
  }
  if (weight.dtype() == DType::f32 &&
      winograd_pays(dy.shape(), weight.shape(), dx.shape(), o, dy.dtype()))
    return winograd_backward_data(dy, weight, o, dx);
  onednn_backward_data(dy, weight, o, dx);
}

namespace {

// The channels [first, first + count) of an activation.
Tensor channel_slice(const Tensor& t, int64_t first, int64_t count) {
  Tensor out = Tensor::empty({t.size(0), t.size(1), t.size(2), count}, t.dtype());
  const int64_t item = size_of(t.dtype()), from = t.size(3) * item, to = count * item;
  const char* in = static_cast<const char*>(t.raw()) + first * item;
  parallel_for(t.numel() / t.size(3), std::max<int64_t>(1, 65536 / to), [&](int64_t pixel) {
    std::memcpy(static_cast<char*>(out.raw()) + pixel * to, in + pixel * from, to);
  });
  return out;
}

// In plain loops, for what is left.
void weight_gradient_loops(const Tensor& x, const Tensor& dy, const Conv2dOptions& o,
                           Tensor& dweight) {
  const int64_t n = x.size(0), h = x.size(1), w = x.size(2), c = x.size(3);
  const int64_t p = dy.size(1), q = dy.size(2), k = dy.size(3);
  const int64_t r = dweight.size(1), s = dweight.size(2);
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T *in = x.data<T>(), *d = dy.data<T>();
    parallel_for(k * r * s, 1, [&](int64_t at) {
      float* sum = dweight.data<float>() + at * c;
      std::fill(sum, sum + c, 0.0f);
      const int64_t f = at / (r * s), down = at / s % r * o.dilation - o.padding,
                    right = at % s * o.dilation - o.padding;
      for (int64_t pixel = 0; pixel < n * p * q; ++pixel) {
        const int64_t y = pixel / q % p * o.stride + down, z = pixel % q * o.stride + right;
        if (y < 0 || y >= h || z < 0 || z >= w) continue;
        const float dout = float(d[pixel * k + f]);
        const T* from = in + ((pixel / (p * q) * h + y) * w + z) * c;
        for (int64_t i = 0; i < c; ++i) sum[i] += dout * float(from[i]);
      }
    });
  });
}

}  // namespace

void conv2d_backward_weight(const Tensor& x, const Tensor& dy, const Conv2dOptions& o,
                            Tensor& dweight, bool add) {
  if (dy.numel() == 0 || x.numel() == 0) {
    if (!add) std::memset(dweight.raw(), 0, dweight.nbytes());
    return;
  }
  if (needs_f32(x)) return conv2d_backward_weight(widened(x), widened(dy), o, dweight, add);
  const int64_t k = dweight.size(0), bytes = dweight.nbytes() / k;  // of a filter
  const int64_t filters = rounded_up(std::max<int64_t>(kMostBeside / bytes, 1), kFewestFilters);
  if (dweight.size(1) * dweight.size(2) == 1 && o.groups == 1 && filters + kFewestFilters <= k) {
    for (int64_t first = 0; first < k; first += filters) {
      const int64_t count = std::min(filters, k - first);
      Tensor part = part_of(dweight, first * bytes, {count, 1, 1, dweight.size(3)}, DType::f32);
      conv2d_backward_weight(x, channel_slice(dy, first, count), o, part, add);
    }
    return;
  }
  if (add) return add_to(dweight, [&](Tensor& sum) { conv2d_backward_weight(x, dy, o, sum); });
  if (o.groups > 1) {
    // oneDNN's grouped kernels are wrong for some shapes; the groups' filters lie one after
    // another.
    Conv2dOptions alone = o;
    alone.groups = 1;
    const int64_t c = dweight.size(3), k = dweight.size(0) / o.groups;
    Tensor part = Tensor::empty({k, dweight.size(1), dweight.size(2), c}, DType::f32);
    for (int64_t g = 0; g < o.groups; ++g) {
      conv2d_backward_weight(channel_slice(x, g * c, c), channel_slice(dy, g * k, k), alone, part);
      std::memcpy(dweight.data<float>() + g * part.numel(), part.raw(), part.nbytes());
    }
    return;
  }
  if (winograd_gradient_pays(x, dy, dweight, o)) return winograd_backward_weight(x, dy, o, dweight);
  const bool right = onednn_gets_weight_gradient(x, dweight, o);
  if (weight_gradient_avx512(x, dy, o, !right, dweight)) return;
  if (!right) return weight_gradient_loops(x, dy, o, dweight);
  onednn_backward_weight(x, dy, o, dweight);
}

namespace {

// Rows are summed in chunks of kRows, chunks in order: the same bits for any number of threads.
constexpr int64_t kRows = 256;

// bf16 as bare bits, so that the loop below becomes plain integer lanes: above zero and no NaN.
inline bool positive(float y) { return y > 0; }
inline float widen(float v) { return v; }
inline bool positive(uint16_t y) { return static_cast<uint16_t>(y - 1) < uint16_t{0x7f80}; }
inline float widen(uint16_t v) { return std::bit_cast<float>(uint32_t{v} << 16); }

template <typename T, bool kMask, bool kSum>
void mask_rows(const T* __restrict act, const T* in, T* out, float* __restrict sums, int64_t rows,
               int64_t k) {
  for (int64_t row = 0; row < rows; ++row, act += kMask ? k : 0, in += k, out += k) {
#pragma omp simd
    for (int64_t i = 0; i < k; ++i) {
      T v = in[i];
      if constexpr (kMask) {
        v = positive(act[i]) ? v : T(0);
        out[i] = v;
      }
      if constexpr (kSum) sums[i] += widen(v);
    }
  }
}

template <typename T>
void mask_chunks(const T* act, const T* in, T* out, float* partial, int64_t rows, int64_t k) {
  const int64_t chunks = (rows + kRows - 1) / kRows;
  parallel_for(chunks, std::max<int64_t>(1, 65536 / (kRows * k)), [&](int64_t c) {
    const int64_t at = c * kRows * k, count = std::min(kRows, rows - c * kRows);
    float* sums = partial + c * k;
    if (act && partial)
      mask_rows<T, true, true>(act + at, in + at, out + at, sums, count, k);
    else if (act)
      mask_rows<T, true, false>(act + at, in + at, out + at, nullptr, count, k);
    else if (partial)
      mask_rows<T, false, true>(nullptr, in + at, out + at, sums, count, k);
  });
}

}  // namespace

void mask_and_column_sum(const Tensor& y, const Tensor& dy, Tensor& masked, Tensor& dbias,
                         bool add) {
  if (add) return add_to(dbias, [&](Tensor& sum) { mask_and_column_sum(y, dy, masked, sum); });
  const int64_t k = dy.size(-1), rows = k ? dy.numel() / k : 0;
  const int64_t chunks = (rows + kRows - 1) / kRows;
  std::vector<float> partial(dbias.defined() ? chunks * k : 0, 0.0f);
  float* sums = partial.empty() ? nullptr : partial.data();
  const void* act = y.defined() ? y.raw() : nullptr;
  if (dy.dtype() == DType::f32)
    mask_chunks(static_cast<const float*>(act), dy.data<float>(), masked.data<float>(), sums, rows,
                k);
  else
    mask_chunks(static_cast<const uint16_t*>(act), static_cast<const uint16_t*>(dy.raw()),
                static_cast<uint16_t*>(masked.raw()), sums, rows, k);
  if (!dbias.defined()) return;
  dbias.fill(0);
  float* sum = dbias.data<float>();
  for (int64_t c = 0; c < chunks; ++c)
    for (int64_t i = 0; i < k; ++i) sum[i] += partial[c * k + i];
}

// --- several maps, one after the other

namespace {

// sum = term of the last level + that of the one before + ..., as if each had been recorded by
// itself; there may be no sum to make.
template <class Term>
void add_levels(size_t levels, Tensor& sum, Term&& term) {
  Tensor next = levels > 1 && sum.defined() ? Tensor::empty_like(sum) : Tensor();
  for (size_t l = levels; l-- > 0;) {
    const bool first = l + 1 == levels;
    term(l, first ? sum : next);
    if (!first && sum.defined()) add_values(next, sum);
  }
}

}  // namespace

void conv2d_forward(const std::vector<Tensor>& xs, const Tensor& weight, const Tensor& bias,
                    const std::vector<Tensor>& residuals, const Conv2dOptions& o,
                    const std::vector<Tensor>& ys) {
  for (size_t l = 0; l < xs.size(); ++l) {
    Tensor y = ys[l];
    conv2d_forward(xs[l], weight, bias, residuals.empty() ? Tensor() : residuals[l], o, y);
  }
}

bool masks_data_gradients() { return false; }
bool takes_bf16_filters(int64_t kernel, const Conv2dOptions& o) {
  return !winograd_fits(o, kernel, kernel, DType::bf16);  // it transforms them in f32
}

Tensor pad_gradient(const Tensor& dy, const Shape&, const Conv2dOptions&) { return dy; }
std::vector<Tensor> pad_gradient(const std::vector<Tensor>& dys, const Shape&,
                                 const Conv2dOptions&) {
  return dys;
}

void conv2d_backward_data(const std::vector<Tensor>& dys, const Tensor& weight,
                          const Conv2dOptions& o, const std::vector<Tensor>& dxs,
                          const std::vector<bool>& add, const std::vector<Tensor>& masks) {
  for (size_t l = 0; l < dys.size(); ++l) {
    Tensor dx = dxs[l];
    conv2d_backward_data(dys[l], weight, o, dx, add[l], masks[l]);
  }
}

void conv2d_backward_weight(const std::vector<Tensor>& xs, const std::vector<Tensor>& dys,
                            const Conv2dOptions& o, Tensor& dweight, bool add) {
  if (add) return add_to(dweight, [&](Tensor& sum) { conv2d_backward_weight(xs, dys, o, sum); });
  if (xs.empty()) dweight.fill(0);
  add_levels(xs.size(), dweight,
             [&](size_t l, Tensor& sum) { conv2d_backward_weight(xs[l], dys[l], o, sum); });
}

void mask_and_column_sum(const std::vector<Tensor>& ys, const std::vector<Tensor>& dys,
                         const std::vector<Tensor>& masked, Tensor& dbias, bool add) {
  if (add) return add_to(dbias, [&](Tensor& sum) { mask_and_column_sum(ys, dys, masked, sum); });
  add_levels(dys.size(), dbias, [&](size_t l, Tensor& sum) {
    Tensor to = masked[l];
    mask_and_column_sum(ys[l], dys[l], to, sum);
  });
}

}  // namespace mixpl::cpu
