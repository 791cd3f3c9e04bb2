// The sizes of a convolution in the 32 bits that kernels count in.
#pragma once

#include "ops/conv2d/conv2d.h"
#include "ops/conv2d/conv2d_axis.h"
#include "ops/conv2d/gemm_plan_cuda.h"

namespace mixpl::cuda {

/// Letters as everywhere: input N H W C, filters K R S, output P Q; c and k are those of one group.
struct ConvSize {
  int n, h, w, c, k, r, s, p, q, groups, stride, padding, dilation;

  /// @throws RangeError when an index of a kernel would not fit
  ConvSize(const Shape& x, const Shape& weight, const Shape& y, const Conv2dOptions& o)
      : n(as_int(x[0], "the number of images")),
        h(as_int(x[1], "the height of x")),
        w(as_int(x[2], "the width of x")),
        c(as_int(weight[3], "the channels of x")),
        k(as_int(weight[0] / o.groups, "the number of filters")),
        r(as_int(weight[1], "the height of a filter")),
        s(as_int(weight[2], "the width of a filter")),
        p(as_int(y[1], "the output's height")),
        q(as_int(y[2], "the output's width")),
        groups(o.groups),
        stride(o.stride),
        padding(o.padding),
        dilation(o.dilation) {
    as_int(x.numel() / std::max<int64_t>(1, x[3]), "the pixels of x");
    as_int(y.numel() / std::max<int64_t>(1, y[3]), "the pixels of the output");
    // Filters are padded to eight channels at most.
    as_int(weight[0] * r * s * ((weight[3] + 7) / 8 * 8), "the elements of all filters");
    as_int(int64_t{h} * w * x[3], "the elements of an image of x");
    as_int(int64_t{p} * q * y[3], "the elements of an image of the output");
  }
  ConvAxis down() const { return forward_axis(p, r, stride, padding, dilation); }
  ConvAxis right() const { return forward_axis(q, s, stride, padding, dilation); }
  int sum() const { return r * s * c; }
};

/// Whether the hardware can gather along this axis of a source of `size` (core/cuda/bulk_copies.h).
inline bool fits_bulk(const ConvAxis& axis, int size) {
  if (axis.positions < 1 || size < 1 || axis.taps < 1) return false;
  const auto is_corner = [](int at) { return at >= -128 && at <= 127; };
  return is_corner(axis.lower()) && is_corner(axis.upper(size)) && axis.reach() <= 255 &&
         axis.stride <= 8;
}

}  // namespace mixpl::cuda
