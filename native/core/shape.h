#pragma once

#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <vector>

#include "core/error.h"

namespace mixpl {

/// Sizes per axis, outermost first; [] is a scalar.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes) : sizes_(sizes) {}
  explicit Shape(std::vector<int64_t> sizes) : sizes_(std::move(sizes)) {}

  int rank() const { return static_cast<int>(sizes_.size()); }
  /// Size of an axis; negative counts from the end.
  int64_t operator[](int axis) const { return sizes_[axis < 0 ? axis + rank() : axis]; }
  int64_t numel() const {
    int64_t n = 1;
    for (int64_t s : sizes_) n *= s;
    return n;
  }
  const std::vector<int64_t>& sizes() const { return sizes_; }
  bool operator==(const Shape&) const = default;

 private:
  std::vector<int64_t> sizes_;
};

/// The shape without its last axis.
inline Shape drop_last(const Shape& shape) {
  return Shape(std::vector<int64_t>(shape.sizes().begin(), shape.sizes().end() - 1));
}

inline std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  out << '[';
  for (int i = 0; i < shape.rank(); ++i) out << (i ? ", " : "") << shape[i];
  return out << ']';
}

}  // namespace mixpl
