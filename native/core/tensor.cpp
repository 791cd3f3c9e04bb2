#include "core/tensor.h"

#include "core/launch.h"
#include "core/tensor_values.h"

namespace mixpl {
namespace {

// Between devices; from one GPU to another through the host, which no training does.
void copy_across(const Tensor& from, const Tensor& to) {
  if (from.device().is_cpu()) {
    MIXPL_DISPATCH(to.device(), write_values, to, from.raw());
  } else if (to.device().is_cpu()) {
    MIXPL_DISPATCH(from.device(), read_values, from, to.raw());
  } else {
    copy_across(from.to(Device::cpu()), to);
  }
}

}  // namespace

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
  if (t.numel()) MIXPL_DISPATCH(device, zero_values, t);
  return t;
}

Tensor Tensor::full(const Shape& shape, float value, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  t.fill(value);
  return t;
}

void Tensor::fill(float value) {
  if (numel()) MIXPL_DISPATCH(device(), fill_values, *this, value);
  touch();
}

Tensor Tensor::from_bytes(const void* values, const Shape& shape, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  if (t.numel()) MIXPL_DISPATCH(device, write_values, t, values);
  return t;
}

void Tensor::read_into(void* values) const {
  if (numel()) MIXPL_DISPATCH(device(), read_values, *this, values);
}

float Tensor::item() const {
  if (numel() != 1) throw ShapeError(str("Tensor::item: needs one element, got ", shape()));
  return dispatch_floating(dtype(), [&](auto value) {
    data<decltype(value)>();  // throws when the dtype is another one
    read_into(&value);
    return float(value);
  });
}

std::vector<float> read_scalars(const std::vector<Tensor>& scalars) {
  if (scalars.empty()) return {};
  const Tensor all =
      Tensor::empty({static_cast<int64_t>(scalars.size())}, DType::f32, scalars[0].device());
  gather_scalars(scalars, all, 0);
  return all.to_vector<float>();
}

void gather_scalars(const std::vector<Tensor>& scalars, const Tensor& out, int64_t at) {
  for (const Tensor& s : scalars) {
    if (s.numel() != 1)
      throw ShapeError(str("gather_scalars: needs one element each, got ", s.shape()));
    if (s.device() != out.device())
      throw DeviceError(str("gather_scalars: all must be on ", out.device(), ", got ", s.device()));
  }
  if (!scalars.empty()) MIXPL_DISPATCH(out.device(), gather_scalars, scalars, out, at);
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
  if (numel()) MIXPL_DISPATCH(device(), copy_values, *this, t);
  return t;
}

void Tensor::copy_from(const Tensor& other) {
  if (other.shape() != shape() || other.dtype() != dtype())
    throw ShapeError(str("Tensor::copy_from: must be ", dtype(), " ", shape(), ", got ",
                         other.dtype(), " ", other.shape()));
  if (numel()) {
    if (other.device() == device())
      MIXPL_DISPATCH(device(), copy_values, other, *this);
    else
      copy_across(other, *this);
  }
  touch();
}

Tensor Tensor::to(DType target) const {
  if (target == dtype()) return *this;
  if (!is_floating(dtype()) || !is_floating(target))
    throw DTypeError(str("Tensor::to: casts between f32 and bf16, not ", dtype(), " to ", target));
  Tensor out = empty(shape(), target, device());
  if (numel()) MIXPL_DISPATCH(device(), cast_values, *this, out);
  return out;
}

Tensor Tensor::to(Device target) const {
  if (target == device()) return *this;
  Tensor out = empty(shape(), dtype(), target);
  if (numel()) copy_across(*this, out);
  return out;
}

}  // namespace mixpl
