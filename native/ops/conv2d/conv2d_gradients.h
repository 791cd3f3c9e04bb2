// How conv2d goes back, and with it linear, which is a convolution of one row of pixels by 1x1.
#pragma once

#include "autograd/tape.h"
#include "ops/conv2d/conv2d.h"

namespace mixpl {

/// Keeps what the backward pass reads. The tensors are as the op was given them, so that they are
/// those on the tape; their shapes need not be those of maps.
struct ConvGradients {
  Tensor x, weight, bias, residual;  // the last two may be undefined
  Shape in, out;                     // x and the output as maps
  Tensor filters;                    // weight as [K, R, S, C / groups]
  Conv2dOptions options;
  Tensor relu;  // the output for a ReLU's mask, without its identity on the tape; or undefined

  /// From the output's gradient to those of x, weight, bias and residual: x's is added to what x
  /// has gathered, and left out where a ReLU made x 0, where that costs no pass of its own.
  Gradients operator()(Tensor dy) const;
};

/// Filters that the CPU packed leave as soon as a pass has been through their layer, forward or
/// backward: in memory are those of one layer, and not those of all.
void forget_packed(const Tensor& filters);

/// Says that y is a ReLU's: whoever computes its gradient may mask it.
void mark_rectified(const Tensor& y);

}  // namespace mixpl
