// What the CPU's normalisations do with rows of values: the loops of simd/rows.h, compiled once for
// each instruction set. A row is `width` neighbouring values, and every value of a column has the
// same constants: a pixel's channels or, where these are few, those of several pixels side by side.
#pragma once

#include "ops/channel_norm/channel_norm_math.h"

namespace mixpl::cpu::channel_norm {

struct RowBlock {
  int64_t rows, width;
  bool cached;  // what is read fits into a core's share of the caches
};

/// y = (x - mean) * scale + shift (+ residual), then ReLU when asked.
template <typename T>
struct ForwardRows {
  const T *x, *residual;  // [rows, width]; residual: null where there is none
  T* y;
  const float *mean, *scale, *shift;  // [width]
  bool relu;
  bool streams;  // y goes past the caches; needs rows of whole cache lines
};

/// With g the gradient behind the ReLU: dx = scale * g + slope * (x - mean) + offset.
template <typename T>
struct BackwardRows {
  const T *x, *dout, *y;  // [rows, width]; y: of NormMask::output
  T *dresidual, *dx;      // dresidual: receives g, or null; dx may be dout
  const float *mean, *scale, *shift, *slope, *offset;  // [width]
  NormMask mask;
  bool streams;  // dx goes past the caches
};

template <typename T>
struct RowLoops {
  /// Adds the sums of x - shift and of its square over the rows to each column's.
  void (*moments)(const T* x, const float* shift, RowBlock block, float* sum, float* square);
  void (*forward)(const ForwardRows<T>& f, RowBlock block);
  /// Adds the sums of g and of g * (x - mean) to each column's; writes dresidual.
  void (*sums)(const BackwardRows<T>& b, RowBlock block, float* sum, float* product);
  /// Writes dx.
  void (*gradient)(const BackwardRows<T>& b, RowBlock block);
};

template <typename T>
const RowLoops<T>& avx512_loops();
template <typename T>
const RowLoops<T>& avx2_loops();
template <typename T>
const RowLoops<T>& portable_loops();

}  // namespace mixpl::cpu::channel_norm
