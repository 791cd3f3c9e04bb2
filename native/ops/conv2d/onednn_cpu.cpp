#include "ops/conv2d/onednn_cpu.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <optional>

#include "core/onednn.h"
#include "core/parallel.h"
#include "core/part.h"

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
  int64_t groups() const { return w.size() == 5 ? w[0] : 1; }
  /// Whether each pixel of y is a product of the one of x in its place.
  bool is_pointwise() const {
    return w.size() == 4 && w[2] == 1 && w[3] == 1 && stride[0] == 1 && padding[0] == 0;
  }
  memory::desc x_desc() const { return {x, type, Tag::nhwc}; }
  memory::desc y_desc() const { return {y, type, Tag::nhwc}; }
  memory::desc w_any(memory::data_type t) const { return {w, t, Tag::any}; }
  memory::desc w_plain(DType stored = DType::f32) const {
    return {w, onednn::type_of(stored), w_stride};
  }
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

// Its code is made when it first runs: some are only asked what memory they need.
template <typename Primitive>
struct Ready {
  typename Primitive::primitive_desc desc;
  explicit Ready(const typename Primitive::primitive_desc& d) : desc(d) {}
  const Primitive& primitive() {
    if (!made_) made_ = Primitive(desc);
    return *made_;
  }

 private:
  std::optional<Primitive> made_;
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

}  // namespace

namespace {

// oneDNN takes a group's channels of bf16 in pairs: of an odd number, the last pixel's last one
// meets, times zero, what lies behind the tensor. That may be NaN: here it is zero.
Tensor finite_behind(const Tensor& x, int64_t groups) {
  if (x.dtype() != DType::bf16 || x.size(3) / groups % 2 == 0) return x;
  constexpr int64_t kBehind = 64;
  const Tensor copy = Tensor::empty({x.nbytes() + kBehind}, DType::u8);
  std::memcpy(copy.raw(), x.raw(), x.nbytes());
  std::memset(static_cast<char*>(copy.raw()) + x.nbytes(), 0, kBehind);
  return copy;
}

// What a convolution multiplies by, as its problem's w_plain(weight.dtype()) describes it.
struct Filters {
  const Tensor& weight;
  std::function<Tensor()> other_order;  // see pack_weight
};

// Memory that a product of pixels may work in, in bytes: oneDNN 2.6 wants four a number of the
// output in bf16, all at once. Pixels that need no more stay in a cache meanwhile.
constexpr int64_t kMostScratch = 8 << 20;
constexpr int64_t kLeastPixels = 64;  // so that filters are not read for a few pixels alone

Problem pixels_of(const Problem& p, int64_t count) {
  Problem part = p;
  part.x = {1, p.x[1], 1, count};
  part.y = {1, p.y[1], 1, count};
  return part;
}

void convolve(const Problem& p, const Tensor& x, const Filters& filters, const Tensor& bias,
              const Tensor& residual, bool relu, Tensor& y, bool in_parts = true) {
  const bool add = residual.defined();
  const auto ready_for = [&](const Problem& problem) {
    return cache<dnnl::convolution_forward>().get(
        problem.key(bias.defined() + 2 * add + 4 * relu), [&] {
          return Ready<dnnl::convolution_forward>(forward_desc(problem, bias.defined(), add, relu));
        });
  };
  const auto scratch_for = [&](const Problem& problem) {
    return static_cast<int64_t>(ready_for(problem)->desc.scratchpad_desc().get_size());
  };
  if (in_parts && p.is_pointwise()) {
    const int64_t pixels = p.y[0] * p.y[2] * p.y[3];
    int64_t at_once = pixels;
    // Again, for some kernels want it once a thread where there is one image.
    for (int64_t wanted = scratch_for(p); wanted > kMostScratch && at_once > kLeastPixels;
         wanted = scratch_for(pixels_of(p, at_once)))
      at_once = std::max(at_once * kMostScratch / wanted, kLeastPixels);
    for (int64_t first = 0; at_once < pixels && first < pixels; first += at_once) {
      const int64_t count = std::min(at_once, pixels - first);
      const auto some = [&](const Tensor& t) {
        if (!t.defined()) return Tensor();
        const int64_t c = t.size(-1);
        return part_of(t, first * c * size_of(t.dtype()), {1, 1, count, c}, t.dtype());
      };
      Tensor out = some(y);
      convolve(pixels_of(p, count), some(x), filters, bias, some(residual), relu, out, false);
    }
    if (at_once < pixels) return;
  }
  const auto ready = ready_for(p);
  const Tensor packed = onednn::pack_weight(filters.weight, p.w_plain(filters.weight.dtype()),
                                            ready->desc.weights_desc(), filters.other_order);
  const Tensor source = finite_behind(x, p.groups());
  std::unordered_map<int, memory> args{
      {DNNL_ARG_SRC, onednn::view(p.x_desc(), source)},
      {DNNL_ARG_WEIGHTS, onednn::view(ready->desc.weights_desc(), packed)},
      {DNNL_ARG_DST, onednn::view(p.y_desc(), y)}};
  if (bias.defined()) args.emplace(DNNL_ARG_BIAS, onednn::view(ready->desc.bias_desc(), bias));
  if (add)
    args.emplace(DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1,
                 onednn::view(p.y_desc(), residual));
  run(ready->primitive(), ready->desc.scratchpad_desc(), std::move(args));
}

}  // namespace

void onednn_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                    const Tensor& residual, const Conv2dOptions& o, Tensor& y) {
  const Problem p(x.shape(), weight.shape(), y.shape(), x.dtype(), o);
  convolve(p, x, {weight, {}}, bias, residual, o.relu, y);
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

// The taps of each filter in reverse: OHWI still.
Tensor reversed_taps(const Tensor& weight) {
  const int64_t taps = weight.size(1) * weight.size(2);
  const int64_t bytes = weight.size(3) * size_of(weight.dtype());  // of a tap
  Tensor reversed = Tensor::empty_like(weight);
  const char* in = static_cast<const char*>(weight.raw());
  char* out = static_cast<char*>(reversed.raw());
  parallel_for(weight.size(0), std::max<int64_t>(1, 65536 / (taps * bytes)), [&](int64_t k) {
    for (int64_t at = 0; at < taps; ++at)
      std::memcpy(out + (k * taps + taps - 1 - at) * bytes, in + (k * taps + at) * bytes, bytes);
  });
  return reversed;
}

// dx, where the gradient is a convolution.
void convolve_back(const Tensor& dy, const Tensor& weight, const Conv2dOptions& o, Tensor& dx) {
  const int64_t k = weight.size(0), r = weight.size(1), s = weight.size(2), c = weight.size(3);
  Conv2dOptions turned;
  turned.dilation = o.dilation;
  turned.padding = o.dilation * (static_cast<int>(r) - 1) - o.padding;
  Problem p(dy.shape(), {c, r, s, k}, dx.shape(), dy.dtype(), turned);
  p.w_stride = {1, r * s * c, s * c, c};
  Filters filters{weight, {}};
  if (r * s > 1) filters.other_order = [&] { return reversed_taps(weight); };
  convolve(p, dy, filters, {}, {}, false, dx);
}

}  // namespace

void onednn_backward_data(const Tensor& dy, const Tensor& weight, const Conv2dOptions& o,
                          Tensor& dx) {
  if (weight.size(1) == 1 && weight.size(2) == 1 && o.stride > 1 && o.padding == 0 &&
      o.groups == 1) {
    // Where no window reaches the gradient is zero; the rest is a dense 1x1 convolution.
    Tensor dense = Tensor::empty({dy.size(0), dy.size(1), dy.size(2), dx.size(3)}, dx.dtype());
    onednn_backward_data(dy, weight, {}, dense);
    spread(dense, o.stride, dx);
    return;
  }
  if (gradient_is_convolution(weight.shape(), o)) return convolve_back(dy, weight, o, dx);
  const Problem p(dx.shape(), weight.shape(), dy.shape(), dy.dtype(), o);
  const auto ready = cache<dnnl::convolution_backward_data>().get(p.key(0), [&] {
    const dnnl::convolution_backward_data::desc desc(
        dnnl::algorithm::convolution_direct, p.x_desc(), p.w_any(p.type), p.y_desc(), p.stride,
        p.dilation, p.padding, p.padding_right());
    return Ready<dnnl::convolution_backward_data>(
        {desc, attributes(nullptr, false), onednn::engine(), forward_desc(p, false, false, false)});
  });
  const Tensor packed =
      onednn::pack_weight(weight, p.w_plain(weight.dtype()), ready->desc.weights_desc());
  const Tensor source = finite_behind(dy, o.groups);
  run(ready->primitive(), ready->desc.scratchpad_desc(),
      {{DNNL_ARG_DIFF_DST, onednn::view(p.y_desc(), source)},
       {DNNL_ARG_WEIGHTS, onednn::view(ready->desc.weights_desc(), packed)},
       {DNNL_ARG_DIFF_SRC, onednn::view(p.x_desc(), dx)}});
}

// oneDNN 2.6 gets some small weight gradients wrong (see DECISIONS.md): a kernel about as large as
// the picture, or strided 1x1 over few channels, where it writes past its scratchpad.
bool onednn_gets_weight_gradient(const Tensor& x, const Tensor& dweight, const Conv2dOptions& o) {
  const int64_t r = dweight.size(1), s = dweight.size(2);
  if (r == 1 && s == 1) return x.size(3) >= 16 || o.stride == 1;
  return x.size(1) >= 2 * (o.dilation * (r - 1) + 1) && x.size(2) >= 2 * (o.dilation * (s - 1) + 1);
}

void onednn_backward_weight(const Tensor& x, const Tensor& dy, const Conv2dOptions& o,
                            Tensor& dweight) {
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
  run(ready->primitive(), ready->desc.scratchpad_desc(),
      {{DNNL_ARG_SRC, onednn::view(p.x_desc(), x)},
       {DNNL_ARG_DIFF_DST, onednn::view(p.y_desc(), dy)},
       {DNNL_ARG_DIFF_WEIGHTS, onednn::view(target, packed)}});
  if (!direct) onednn::reorder(target, packed.raw(), p.w_plain(), dweight.raw());
}

}  // namespace mixpl::cpu
