#include <algorithm>
#include <bit>

#include "core/onednn.h"
#include "core/parallel.h"
#include "ops/conv2d/conv2d.h"
#include "ops/conv2d/weight_gradient_cpu.h"

namespace mixpl::cpu {
namespace {

using dnnl::memory;
using Tag = memory::format_tag;

// One convolution problem as oneDNN sees it.
struct Problem {
  memory::dims x, w, y, stride, dilation, padding;
  memory::dims w_stride;  // of our OHWI weights, in the order of `w`
  memory::data_type type;

  Problem(const Shape& xs, const Shape& ws, const Shape& ys, DType dtype, const Conv2dOptions& o)
      : x{xs[0], xs[3], xs[1], xs[2]},
        y{ys[0], ys[3], ys[1], ys[2]},
        stride{o.stride, o.stride},
        dilation{o.dilation - 1, o.dilation - 1},
        padding{o.padding, o.padding},
        type(onednn::type_of(dtype)) {
    const int64_t k = ws[0], r = ws[1], s = ws[2], c = ws[3], g = o.groups;
    if (g == 1) {
      w = {k, c, r, s};
      w_stride = {r * s * c, 1, s * c, c};
    } else {
      w = {g, k / g, c, r, s};
      w_stride = {(k / g) * r * s * c, r * s * c, 1, s * c, c};
    }
  }
  std::vector<int64_t> key(int64_t kind) const {
    std::vector<int64_t> k{kind, static_cast<int64_t>(type), static_cast<int64_t>(w.size())};
    for (const memory::dims* d : {&x, &w, &y, &stride, &dilation, &padding})
      k.insert(k.end(), d->begin(), d->end());
    return k;
  }
  memory::desc x_desc() const { return {x, type, Tag::nhwc}; }
  memory::desc y_desc() const { return {y, type, Tag::nhwc}; }
  memory::desc w_any(memory::data_type t) const { return {w, t, Tag::any}; }
  memory::desc w_plain() const { return {w, memory::data_type::f32, w_stride}; }
  // Right and bottom padding: what is needed to reach the output size, not less.
  memory::dims padding_right() const {
    memory::dims out(2);
    for (int i = 0; i < 2; ++i) {
      const int64_t kernel = w[w.size() - 2 + i];
      const int64_t reach = (dilation[i] + 1) * (kernel - 1) + 1;
      out[i] = (y[2 + i] - 1) * stride[i] + reach - x[2 + i] - padding[i];
    }
    return out;
  }
};

// The residual is an operand of its own: adding it in place would first copy it into the output.
dnnl::primitive_attr attributes(const memory::desc* residual, bool relu) {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  dnnl::post_ops ops;
  if (residual) ops.append_binary(dnnl::algorithm::binary_add, *residual);
  if (relu) ops.append_eltwise(1.0f, dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
  attr.set_post_ops(ops);
  return attr;
}

dnnl::convolution_forward::primitive_desc forward_desc(const Problem& p, bool bias, bool residual,
                                                       bool relu) {
  const auto kind = dnnl::prop_kind::forward_training;
  const auto algorithm = dnnl::algorithm::convolution_direct;
  const memory::desc b({p.y[1]}, memory::data_type::f32, Tag::x);
  const auto desc = bias ? dnnl::convolution_forward::desc(kind, algorithm, p.x_desc(),
                                                           p.w_any(p.type), b, p.y_desc(), p.stride,
                                                           p.dilation, p.padding, p.padding_right())
                         : dnnl::convolution_forward::desc(
                               kind, algorithm, p.x_desc(), p.w_any(p.type), p.y_desc(), p.stride,
                               p.dilation, p.padding, p.padding_right());
  const memory::desc y = p.y_desc();
  return {desc, attributes(residual ? &y : nullptr, relu), onednn::engine()};
}

template <typename Primitive>
struct Ready {
  typename Primitive::primitive_desc desc;
  Primitive primitive;
  explicit Ready(const typename Primitive::primitive_desc& d) : desc(d), primitive(d) {}
};

template <typename Primitive>
onednn::PrimitiveCache<Ready<Primitive>>& cache() {
  static thread_local onednn::PrimitiveCache<Ready<Primitive>> c;
  return c;
}

void run(const dnnl::primitive& primitive, const memory::desc& scratch,
         std::unordered_map<int, memory> args) {
  const Tensor work = onednn::scratchpad(scratch);
  args.emplace(DNNL_ARG_SCRATCHPAD, onednn::view(scratch, work));
  primitive.execute(onednn::stream(), args);
  onednn::stream().wait();
}

// Where the processor has no bf16 kernels: computes in f32 between two roundings.
bool needs_f32(const Tensor& t) { return t.dtype() == DType::bf16 && !onednn::has_bf16(); }
Tensor widened(const Tensor& t) { return t.defined() ? t.to(DType::f32) : t; }
void narrow(const Tensor& from, Tensor& to) {
  std::memcpy(to.raw(), from.to(DType::bf16).raw(), to.nbytes());
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

}  // namespace

void conv2d_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                    const Tensor& residual, const Conv2dOptions& o, Tensor& y) {
  if (y.numel() == 0) return;
  if (x.numel() == 0) return fill_without_input(bias, residual, o.relu, y);
  if (needs_f32(x)) {
    Tensor wide = Tensor::empty(y.shape(), DType::f32);
    conv2d_forward(widened(x), weight.to(DType::bf16).to(DType::f32), bias, widened(residual), o,
                   wide);
    return narrow(wide, y);
  }
  const Problem p(x.shape(), weight.shape(), y.shape(), x.dtype(), o);
  const bool add = residual.defined();
  const auto ready =
      cache<dnnl::convolution_forward>().get(p.key(bias.defined() + 2 * add + 4 * o.relu), [&] {
        return Ready<dnnl::convolution_forward>(forward_desc(p, bias.defined(), add, o.relu));
      });
  const Tensor packed = onednn::pack_weight(weight, p.w_plain(), ready->desc.weights_desc());
  std::unordered_map<int, memory> args{
      {DNNL_ARG_SRC, onednn::view(p.x_desc(), x)},
      {DNNL_ARG_WEIGHTS, onednn::view(ready->desc.weights_desc(), packed)},
      {DNNL_ARG_DST, onednn::view(p.y_desc(), y)}};
  if (bias.defined()) args.emplace(DNNL_ARG_BIAS, onednn::view(ready->desc.bias_desc(), bias));
  if (add)
    args.emplace(DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1,
                 onednn::view(p.y_desc(), residual));
  run(ready->primitive, ready->desc.scratchpad_desc(), std::move(args));
}

namespace {

// The data gradient of a stride-1 convolution is a convolution of dy with the kernel turned by 180
// degrees and its channels swapped. oneDNN's forward kernels are the quicker ones, see
// DECISIONS.md.
bool gradient_is_convolution(const Shape& weight, const Conv2dOptions& o) {
  return o.stride == 1 && o.groups == 1 && weight[1] == weight[2] &&
         o.padding <= o.dilation * (weight[1] - 1);
}

// Pixel (p, q) of `dense` goes to (p stride, q stride) of dx; zeros between.
void spread(const Tensor& dense, int64_t stride, Tensor& dx) {
  const int64_t h = dx.size(1), w = dx.size(2), p = dense.size(1), q = dense.size(2);
  const int64_t bytes = dx.size(3) * size_of(dx.dtype());
  const char* in = static_cast<const char*>(dense.raw());
  char* out = static_cast<char*>(dx.raw());
  parallel_for(dx.size(0) * h, std::max<int64_t>(1, 65536 / (w * bytes)), [&](int64_t row) {
    const int64_t n = row / h, y = row % h;
    std::memset(out + row * w * bytes, 0, w * bytes);
    if (y % stride || y / stride >= p) return;
    for (int64_t i = 0; i < q; ++i)
      std::memcpy(out + (row * w + i * stride) * bytes, in + ((n * p + y / stride) * q + i) * bytes,
                  bytes);
  });
}

Tensor turned_weight(const Tensor& weight) {
  return weight.derived<Tensor>("turned", [&] {
    const int64_t k = weight.size(0), c = weight.size(3), rs = weight.size(1) * weight.size(2);
    Tensor turned = Tensor::empty({c, weight.size(1), weight.size(2), k}, DType::f32);
    const float* in = weight.data<float>();
    float* out = turned.data<float>();
    constexpr int64_t kTile = 16;  // both sides of a tile stay in the first cache
    const int64_t tiles = (c + kTile - 1) / kTile;
    parallel_for(rs * tiles, std::max<int64_t>(1, 16384 / (k * kTile)), [&](int64_t i) {
      const int64_t at = i / tiles, begin = i % tiles * kTile, end = std::min(c, begin + kTile);
      for (int64_t row = 0; row < k; row += kTile)
        for (int64_t col = begin; col < end; ++col)
          for (int64_t j = row; j < std::min(k, row + kTile); ++j)
            out[(col * rs + rs - 1 - at) * k + j] = in[(j * rs + at) * c + col];
    });
    return turned;
  });
}

}  // namespace

void conv2d_backward_data(const Tensor& dy, const Tensor& weight, const Conv2dOptions& o,
                          Tensor& dx) {
  if (dx.numel() == 0) return;
  if (dy.numel() == 0) {
    std::memset(dx.raw(), 0, dx.nbytes());
    return;
  }
  if (needs_f32(dy)) {
    Tensor wide = Tensor::empty(dx.shape(), DType::f32);
    conv2d_backward_data(widened(dy), weight.to(DType::bf16).to(DType::f32), o, wide);
    return narrow(wide, dx);
  }
  if (weight.size(1) == 1 && weight.size(2) == 1 && o.stride > 1 && o.padding == 0 &&
      o.groups == 1) {
    // Where no window reaches the gradient is zero; the rest is a dense 1x1 convolution.
    Tensor dense = Tensor::empty({dy.size(0), dy.size(1), dy.size(2), dx.size(3)}, dx.dtype());
    conv2d_backward_data(dy, weight, {}, dense);
    spread(dense, o.stride, dx);
    return;
  }
  if (gradient_is_convolution(weight.shape(), o)) {
    Conv2dOptions turned;
    turned.dilation = o.dilation;
    turned.padding = o.dilation * (static_cast<int>(weight.size(1)) - 1) - o.padding;
    conv2d_forward(dy, turned_weight(weight), {}, {}, turned, dx);
    return;
  }
  const Problem p(dx.shape(), weight.shape(), dy.shape(), dy.dtype(), o);
  const auto ready = cache<dnnl::convolution_backward_data>().get(p.key(0), [&] {
    const dnnl::convolution_backward_data::desc desc(
        dnnl::algorithm::convolution_direct, p.x_desc(), p.w_any(p.type), p.y_desc(), p.stride,
        p.dilation, p.padding, p.padding_right());
    return Ready<dnnl::convolution_backward_data>(
        {desc, attributes(nullptr, false), onednn::engine(), forward_desc(p, false, false, false)});
  });
  const Tensor packed = onednn::pack_weight(weight, p.w_plain(), ready->desc.weights_desc());
  run(ready->primitive, ready->desc.scratchpad_desc(),
      {{DNNL_ARG_DIFF_DST, onednn::view(p.y_desc(), dy)},
       {DNNL_ARG_WEIGHTS, onednn::view(ready->desc.weights_desc(), packed)},
       {DNNL_ARG_DIFF_SRC, onednn::view(p.x_desc(), dx)}});
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

// oneDNN 2.6 gets some small weight gradients wrong (see DECISIONS.md): a kernel about as large as
// the picture, or strided 1x1 over few channels, where it writes past its scratchpad.
bool onednn_is_right(const Tensor& x, const Tensor& dweight, const Conv2dOptions& o) {
  const int64_t r = dweight.size(1), s = dweight.size(2);
  if (r == 1 && s == 1) return x.size(3) >= 16 || o.stride == 1;
  return x.size(1) >= 2 * (o.dilation * (r - 1) + 1) && x.size(2) >= 2 * (o.dilation * (s - 1) + 1);
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
                            Tensor& dweight) {
  if (dy.numel() == 0 || x.numel() == 0) {
    std::memset(dweight.raw(), 0, dweight.nbytes());
    return;
  }
  if (needs_f32(x)) return conv2d_backward_weight(widened(x), widened(dy), o, dweight);
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
  const bool right = onednn_is_right(x, dweight, o);
  if (weight_gradient_avx512(x, dy, o, !right, dweight)) return;
  if (!right) return weight_gradient_loops(x, dy, o, dweight);
  const Problem p(x.shape(), dweight.shape(), dy.shape(), x.dtype(), o);
  const auto ready = cache<dnnl::convolution_backward_weights>().get(p.key(0), [&] {
    const dnnl::convolution_backward_weights::desc desc(
        dnnl::algorithm::convolution_direct, p.x_desc(), p.w_any(memory::data_type::f32),
        p.y_desc(), p.stride, p.dilation, p.padding, p.padding_right());
    return Ready<dnnl::convolution_backward_weights>(
        {desc, attributes(nullptr, false), onednn::engine(), forward_desc(p, false, false, false)});
  });
  const memory::desc target = ready->desc.diff_weights_desc();
  const bool direct = target == p.w_plain();
  const Tensor packed = direct ? dweight : onednn::scratchpad(target);
  run(ready->primitive, ready->desc.scratchpad_desc(),
      {{DNNL_ARG_SRC, onednn::view(p.x_desc(), x)},
       {DNNL_ARG_DIFF_DST, onednn::view(p.y_desc(), dy)},
       {DNNL_ARG_DIFF_WEIGHTS, onednn::view(target, packed)}});
  if (!direct) onednn::reorder(target, packed.raw(), p.w_plain(), dweight.raw());
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

void mask_and_column_sum(const Tensor& y, const Tensor& dy, Tensor& masked, Tensor& dbias) {
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

}  // namespace mixpl::cpu
