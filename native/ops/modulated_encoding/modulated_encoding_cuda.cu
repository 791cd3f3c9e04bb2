#include "core/cuda/packs.h"
#include "ops/modulated_encoding/modulated_encoding.h"
#include "ops/modulated_encoding/modulated_encoding_math.h"

namespace mixpl::cuda {
namespace {

constexpr int kWarps = 8;  // of a block; each has a query

template <typename T, int N>
MIXPL_KERNEL __launch_bounds__(kWarps * 32)
    forward_kernel(ModulationView<T> view, T* __restrict__ y) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + warp();
  if (row >= view.rows) return;
  const int64_t at = row * view.channels;
  const float factor_y = view.factor_y(row), factor_x = view.factor_x(row);
  for (int64_t c = lane() * N; c < view.channels; c += 32 * N) {
    const Vec<T, N> e = load_vec<T, N>(view.encoding + 2 * at + c);
    Vec<T, N> s = {};
    if (view.scale) s = load_vec<T, N>(view.scale + at + c);
    const float factor = 2 * c < view.channels ? factor_y : factor_x;
    Vec<T, N> out;
#pragma unroll
    for (int n = 0; n < N; ++n)
      out[n] = T(float(e[n]) * factor * (view.scale ? float(s[n]) : 1.0f));
    store_vec(y + at + c, out);
  }
}

template <typename T, int N>
MIXPL_KERNEL __launch_bounds__(kWarps * 32)
    backward_kernel(ModulationView<T> view, const T* __restrict__ dy, T* __restrict__ dencoding,
                    T* __restrict__ dscale, T* __restrict__ dsizes, float* __restrict__ dboxes) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + warp();
  if (row >= view.rows) return;
  const int64_t at = row * view.channels;
  const float factor_y = view.factor_y(row), factor_x = view.factor_x(row);
  float of_y = 0, of_x = 0;
  for (int64_t c = lane() * N; c < view.channels; c += 32 * N) {
    const Vec<T, N> d = load_vec<T, N>(dy + at + c);
    const Vec<T, N> e = load_vec<T, N>(view.encoding + 2 * at + c);
    Vec<T, N> s = {};
    if (view.scale) s = load_vec<T, N>(view.scale + at + c);
    const bool is_y = 2 * c < view.channels;
    const float factor = is_y ? factor_y : factor_x;
    Vec<T, N> of_encoding, of_scale;
    float sum = 0;
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const float scaled = float(d[n]) * (view.scale ? float(s[n]) : 1.0f);
      sum = fmaf(scaled, float(e[n]), sum);
      of_encoding[n] = T(scaled * factor);
      of_scale[n] = T(float(d[n]) * float(e[n]) * factor);
    }
    (is_y ? of_y : of_x) += sum;
    if (dencoding) {
      store_vec(dencoding + 2 * at + c, of_encoding);
      store_vec(dencoding + 2 * at + view.channels + c, Vec<T, N>{});
    }
    if (dscale) store_vec(dscale + at + c, of_scale);
  }
  of_y = warp_sum(of_y);
  of_x = warp_sum(of_x);
  if (lane() == 0) view.put_slopes(row, of_y, of_x, dsizes, dboxes);
}

unsigned blocks_of(int64_t rows) { return index_of((rows + kWarps - 1) / kWarps); }

template <typename T>
T* data_of(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

}  // namespace

void modulated_encoding_forward(const Tensor& encoding, const Tensor& sizes, const Tensor& boxes,
                                const Tensor& scale, Tensor& y) {
  dispatch_floating(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const auto view = modulation_view<T>(encoding, sizes, boxes, scale);
    with_packs<T>(view.channels / 2, [&](auto pack) {  // no pack is of both halves
      launch(forward_kernel<T, decltype(pack)::value>, blocks_of(view.rows), kWarps * 32, 0, view,
             y.data<T>());
    });
  });
}

void modulated_encoding_backward(const Tensor& dy, const Tensor& encoding, const Tensor& sizes,
                                 const Tensor& boxes, const Tensor& scale,
                                 ModulatedEncodingGradients& gradients) {
  dispatch_floating(dy.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const auto view = modulation_view<T>(encoding, sizes, boxes, scale);
    with_packs<T>(view.channels / 2, [&](auto pack) {
      launch(backward_kernel<T, decltype(pack)::value>, blocks_of(view.rows), kWarps * 32, 0, view,
             dy.data<T>(), data_of<T>(gradients.dencoding), data_of<T>(gradients.dscale),
             data_of<T>(gradients.dsizes), data_of<float>(gradients.dboxes));
    });
  });
}

}  // namespace mixpl::cuda
