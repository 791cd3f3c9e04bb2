#include "core/tensor.h"

#include "core/parallel.h"

namespace mixpl {

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  for (int64_t s : shape.sizes())
    if (s < 0) throw ShapeError(str("Tensor: sizes must be >= 0, got ", shape));
  auto impl = std::make_shared<TensorImpl>();
  impl->storage = allocate(shape.numel() * size_of(dtype), device);
  impl->shape = shape;
  impl->dtype = dtype;
  impl->device = device;
  return Tensor(std::move(impl));
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  std::memset(t.raw(), 0, t.nbytes());
  return t;
}

Tensor Tensor::full(const Shape& shape, float value, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  t.fill(value);
  return t;
}

void Tensor::fill(float value) {
  const int64_t n = numel();
  switch (dtype()) {
    case DType::f32:
      std::fill_n(data<float>(), n, value);
      break;
    case DType::bf16:
      std::fill_n(data<bfloat16>(), n, bfloat16(value));
      break;
    case DType::i32:
      std::fill_n(data<int32_t>(), n, static_cast<int32_t>(value));
      break;
    case DType::i64:
      std::fill_n(data<int64_t>(), n, static_cast<int64_t>(value));
      break;
    case DType::u8:
      std::fill_n(data<uint8_t>(), n, static_cast<uint8_t>(value));
      break;
  }
  touch();
}

float Tensor::item() const {
  if (numel() != 1) throw ShapeError(str("Tensor::item: needs one element, got ", shape()));
  return dispatch_floating(dtype(), [&](auto tag) { return float(*data<decltype(tag)>()); });
}

Tensor Tensor::alias(const Shape& shape) const {
  if (shape.numel() != numel())
    throw ShapeError(str("Tensor::alias: ", this->shape(), " cannot be seen as ", shape));
  auto impl = std::make_shared<TensorImpl>();
  impl->storage = impl_->storage;
  impl->shape = shape;
  impl->dtype = dtype();
  impl->device = device();
  return Tensor(std::move(impl));
}

Tensor Tensor::clone() const {
  Tensor t = empty_like(*this);
  std::memcpy(t.raw(), raw(), nbytes());
  return t;
}

void Tensor::copy_from(const Tensor& other) {
  if (other.shape() != shape() || other.dtype() != dtype())
    throw ShapeError(str("Tensor::copy_from: must be ", dtype(), " ", shape(), ", got ",
                         other.dtype(), " ", other.shape()));
  std::memcpy(raw(), other.raw(), nbytes());
  touch();
}

Tensor Tensor::to(DType target) const {
  if (target == dtype()) return *this;
  Tensor out = empty(shape(), target, device());
  dispatch_floating(dtype(), [&](auto from) {
    dispatch_floating(target, [&](auto to) {
      const auto* in = data<decltype(from)>();
      auto* result = out.data<decltype(to)>();
      parallel_chunks(numel(), 1 << 15, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) result[i] = decltype(to)(float(in[i]));
      });
    });
  });
  return out;
}

}  // namespace mixpl
