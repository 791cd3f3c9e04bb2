#pragma once

#include <utility>
#include <vector>

#include "core/tensor.h"

namespace mixpl {

/// scale * (a + b + ...) of f32 scalars: a loss gathered over pyramid levels and normalised. At
/// most 256 scalars; without any, 0 on the device of the context.
/// @grad every input. @throws ShapeError, DTypeError, DeviceError
Tensor scaled_sum(const std::vector<Tensor>& scalars, float scale);

/// What a sum is divided by: a normaliser that was counted on the device and stays there, f32 [1],
/// or a number that the host knows.
class Divisor {
 public:
  Divisor(Tensor counted) : counted_(std::move(counted)) {}
  explicit Divisor(float known) : known_(known) {}  // else it could be taken for a scale

  const Tensor& counted() const { return counted_; }  // undefined: it is known
  float known() const { return known_; }

 private:
  Tensor counted_;
  float known_ = 1;
};

/// scale * (a + b + ...) / divisor, which is a constant: it gets no gradient. 0 gives what IEEE 754
/// says.
/// @grad every scalar. @throws ShapeError, DTypeError, DeviceError
Tensor scaled_sum(const std::vector<Tensor>& scalars, const Divisor& divisor, float scale = 1);

namespace cpu {
/// y = scale * (sum of the terms) / divisor
void scaled_sum_forward(const std::vector<Tensor>& terms, const Divisor& divisor, float scale,
                        Tensor& y);
/// dterm = scale * dy / divisor
void scaled_sum_backward(const Tensor& dy, const Divisor& divisor, float scale, Tensor& dterm);
}  // namespace cpu

namespace cuda {
void scaled_sum_forward(const std::vector<Tensor>& terms, const Divisor& divisor, float scale,
                        Tensor& y);
void scaled_sum_backward(const Tensor& dy, const Divisor& divisor, float scale, Tensor& dterm);
}  // namespace cuda

}  // namespace mixpl
