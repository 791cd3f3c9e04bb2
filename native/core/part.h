#pragma once

#include "core/tensor.h"

namespace mixpl {

/// A part of a tensor's memory as a tensor of its own, outside the tape; the memory lives as long
/// as any of its parts. The caller keeps inside it.
/// @param offset in bytes, a multiple of the element's size
inline Tensor part_of(const Tensor& whole, int64_t offset, const Shape& shape, DType dtype) {
  auto impl = std::make_shared<TensorImpl>();
  impl->storage =
      std::shared_ptr<void>(whole.impl()->storage, static_cast<uint8_t*>(whole.raw()) + offset);
  impl->shape = shape;
  impl->dtype = dtype;
  impl->device = whole.device();
  return Tensor(std::move(impl));
}

}  // namespace mixpl
