#include "ops/conv2d/winograd_cpu.h"

#include <cmath>

#include "core/avx512.h"
#include "core/onednn.h"
#include "ops/conv2d/winograd/kernels.h"

namespace mixpl::cpu {

#if defined(__x86_64__)
namespace {

using winograd::kOut;

// bf16 needs the instructions that round to it.
const winograd::Kernels& kernels(DType dtype) {
  const bool wide = dtype == DType::bf16 ? has_avx512_bf16() : has_avx512();
  return wide ? winograd::avx512_kernels() : winograd::avx2_kernels();
}

}  // namespace

// Tiles multiply bf16 sixteen times as quickly as lanes multiply f32: no transform saves that much.
bool winograd_fits(const Conv2dOptions& o, int64_t r, int64_t s, DType dtype) {
  if (dtype == DType::bf16 && onednn::has_amx()) return false;
  return r == 3 && s == 3 && o.stride == 1 && o.dilation == 1 && o.groups == 1;
}

void winograd_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                      const Tensor& residual, const Conv2dOptions& o, Tensor& y) {
  kernels(x.dtype()).forward(x, weight, bias, residual, o, y);
}

void winograd_backward_data(const Tensor& dy, const Tensor& weight, const Conv2dOptions& o,
                            Tensor& dx) {
  kernels(dy.dtype()).backward_data(dy, weight, o, dx);
}

void winograd_backward_weight(const Tensor& x, const Tensor& dy, const Conv2dOptions& o,
                              Tensor& dweight) {
  kernels(x.dtype()).backward_weight(x, dy, o, dweight);
}

// Time in multiply-adds of one lane, fitted to measurements: products and the transforms of
// inputs, outputs and weights, against products tap by tap, which are twice as quick in bf16.
bool winograd_pays(const Shape& in, const Shape& weight, const Shape& out, const Conv2dOptions& o,
                   DType dtype) {
  if (!winograd_fits(o, weight[1], weight[2], dtype)) return false;
  const double c = in[3], k = out[3], pixels = double(out[0]) * out[1] * out[2];
  const double tiles = double(out[0]) * ((out[1] + kOut - 1) / kOut) * ((out[2] + kOut - 1) / kOut);
  const double groups = std::ceil(tiles / kernels(dtype).group_tiles);
  const double ours = tiles * (45 * c * k + 700 * c + 400 * k) + groups * 450 * c * k;
  return ours < pixels * 9 * c * k * (dtype == DType::bf16 ? 0.5 : 1.0);
}

bool winograd_gradient_pays(const Tensor& x, const Tensor& dy, const Tensor& dweight,
                            const Conv2dOptions& o) {
  if (!winograd_fits(o, dweight.size(1), dweight.size(2), x.dtype())) return false;
  const double c = x.size(3), k = dy.size(3), n = dy.size(0), h = dy.size(1), w = dy.size(2);
  const double tiles = n * std::ceil(h / kOut) * std::ceil(w / kOut);
  const double ours = tiles * (45 * c * k + 700 * c + 700 * k) + 1200 * c * k;
  return ours < n * h * w * 9 * c * k * (x.dtype() == DType::bf16 ? 0.55 : 1.0);
}

#else

void winograd_forward(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                      const Conv2dOptions&, Tensor&) {}
void winograd_backward_data(const Tensor&, const Tensor&, const Conv2dOptions&, Tensor&) {}
void winograd_backward_weight(const Tensor&, const Tensor&, const Conv2dOptions&, Tensor&) {}
bool winograd_fits(const Conv2dOptions&, int64_t, int64_t, DType) { return false; }
bool winograd_pays(const Shape&, const Shape&, const Shape&, const Conv2dOptions&, DType) {
  return false;
}
bool winograd_gradient_pays(const Tensor&, const Tensor&, const Tensor&, const Conv2dOptions&) {
  return false;
}

#endif

}  // namespace mixpl::cpu
