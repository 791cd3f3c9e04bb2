// Argument checks with one wording: `<op>: <argument> must be <expected> (<why>), got <received>`.
#pragma once

#include <cmath>
#include <string>

#include "core/tensor.h"

namespace mixpl {

class Check {
 public:
  explicit Check(const char* op) : op_(op) {}

  void defined(const char* name, const Tensor& t) const {
    if (!t.defined()) throw ShapeError(str(op_, ": ", name, " must be a tensor, got none"));
  }
  void floating(const char* name, const Tensor& t) const {
    defined(name, t);
    if (!is_floating(t.dtype()))
      throw DTypeError(str(op_, ": ", name, " must be f32 or bf16, got ", t.dtype()));
  }
  void dtype(const char* name, const Tensor& t, DType expected) const {
    defined(name, t);
    if (t.dtype() != expected)
      throw DTypeError(str(op_, ": ", name, " must be ", expected, ", got ", t.dtype()));
  }
  void rank(const char* name, const Tensor& t, int rank, const char* letters) const {
    defined(name, t);
    if (t.rank() != rank)
      throw ShapeError(
          str(op_, ": ", name, " must have ", rank, " axes (", letters, "), got ", t.shape()));
  }
  void shape(const char* name, const Tensor& t, const Shape& expected, const char* why) const {
    defined(name, t);
    if (t.shape() != expected)
      throw ShapeError(
          str(op_, ": ", name, " must be ", expected, " (", why, "), got ", t.shape()));
  }
  void size(const char* name, const Tensor& t, int axis, int64_t expected, const char* why) const {
    if (t.size(axis) != expected)
      throw ShapeError(str(op_, ": axis ", axis, " of ", name, " must be ", expected, " (", why,
                           "), got ", t.shape()));
  }
  void same_device(const char* name, const Tensor& t, const Tensor& other) const {
    if (t.device() != other.device())
      throw DeviceError(str(op_, ": ", name, " must be on ", other.device(), ", got ", t.device()));
  }
  void in_range(const char* name, double value, double low, double high) const {
    if (!(value >= low && value <= high))
      throw RangeError(str(op_, ": ", name, " must be in [", low, ", ", high, "], got ", value));
  }
  void at_least(const char* name, double value, double low) const {
    if (!(value >= low && std::isfinite(value)))
      throw RangeError(str(op_, ": ", name, " must be >= ", low, ", got ", value));
  }
  const char* op() const { return op_; }

 private:
  const char* op_;
};

}  // namespace mixpl
