// Random tensors for tests.
#pragma once

#include "core/philox.h"
#include "core/tensor.h"

namespace mixpl {

/// Normally distributed numbers, the same for every type but for rounding.
inline Tensor normals(const Shape& shape, DType dtype, uint64_t seed) {
  Tensor t = Tensor::empty(shape, DType::f32);
  const Philox random{seed, 0};
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = random.normal(i);
  return t.to(dtype);
}

}  // namespace mixpl
