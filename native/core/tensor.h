// A contiguous block of numbers with a shape. Activations are NHWC, weights OHWI, boxes xyxy.
#pragma once

#include <any>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/allocator.h"
#include "core/device.h"
#include "core/dtype.h"
#include "core/shape.h"

namespace mixpl {

class Tensor;

/// What copies of a Tensor share. Identity on the tape is the address of this.
struct TensorImpl {
  std::shared_ptr<void> storage;
  Shape shape;
  DType dtype = DType::f32;
  Device device;
  bool requires_grad = false;
  uint64_t version = 0;              // counts writes to the values, see Tensor::touch
  std::shared_ptr<TensorImpl> grad;  // gradient of the last backward, same shape
  // Of a ReLU, which takes the gradient where the values are above 0 alone: whoever computes it may
  // leave the rest out.
  bool rectified = false;
  // Of a gradient: address of the values that it is 0 behind where they are not above 0.
  const void* masked_by = nullptr;
  // Values computed from this one (packed or cast weights), valid while `derived_version ==
  // version`.
  uint64_t derived_version = 0;
  std::map<std::string, std::any> derived;
};

/// Handle to a tensor; copying it shares the data. An undefined Tensor holds nothing.
class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(std::shared_ptr<TensorImpl> impl) : impl_(std::move(impl)) {}

  /// Uninitialised. @throws ShapeError for a negative size, OutOfMemoryError
  static Tensor empty(const Shape& shape, DType dtype, Device device = {});
  static Tensor zeros(const Shape& shape, DType dtype, Device device = {});
  static Tensor full(const Shape& shape, float value, DType dtype, Device device = {});
  static Tensor empty_like(const Tensor& other) {
    return empty(other.shape(), other.dtype(), other.device());
  }
  template <typename T>
  static Tensor from(const std::vector<T>& values, const Shape& shape, Device device = {}) {
    if (static_cast<int64_t>(values.size()) != shape.numel())
      throw ShapeError(
          str("Tensor::from: ", shape, " needs ", shape.numel(), " values, got ", values.size()));
    return from_bytes(values.data(), shape, dtype_of<T>(), device);
  }

  bool defined() const { return impl_ != nullptr; }
  const Shape& shape() const { return impl_->shape; }
  int rank() const { return impl_->shape.rank(); }
  int64_t size(int axis) const { return impl_->shape[axis]; }
  int64_t numel() const { return impl_->shape.numel(); }
  int64_t nbytes() const { return numel() * size_of(dtype()); }
  DType dtype() const { return impl_->dtype; }
  Device device() const { return impl_->device; }

  /// The first value; on a GPU no address for the host to read or write.
  void* raw() const { return impl_->storage.get(); }
  /// Typed pointer. @throws DTypeError when T is not the dtype
  template <typename T>
  T* data() const {
    if (dtype() != dtype_of<T>())
      throw DTypeError(str("Tensor::data: asked for ", dtype_of<T>(), ", holds ", dtype()));
    return static_cast<T*>(raw());
  }
  /// The values, copied to the host: waits for the GPU, as item() does.
  template <typename T>
  std::vector<T> to_vector() const {
    data<T>();  // throws when T is not the dtype
    std::vector<T> values(numel());
    read_into(values.data());
    return values;
  }
  float item() const;

  /// The same storage under another shape; outside the tape (ops/reshape is on it).
  Tensor alias(const Shape& shape) const;
  Tensor clone() const;
  Tensor to(DType dtype) const;
  /// Itself, or a copy on another device.
  Tensor to(Device device) const;
  /// A handle that shares the data but not the tape identity.
  Tensor detach() const { return alias(shape()); }
  /// From a tensor of the same shape and dtype, on any device.
  void copy_from(const Tensor& other);
  void fill(float value);

  bool requires_grad() const { return impl_ && impl_->requires_grad; }
  Tensor& set_requires_grad(bool on) {
    impl_->requires_grad = on;
    return *this;
  }
  Tensor grad() const { return Tensor(impl_->grad); }
  void set_grad(const Tensor& grad) { impl_->grad = grad.impl_; }

  /// Says that the values changed: forgets what was derived from them.
  void touch() { ++impl_->version; }
  /// A value derived from this tensor's data (say, packed weights), made once per version.
  template <typename T, typename Make>
  T derived(const std::string& key, Make&& make) const {
    if (impl_->derived_version != impl_->version) {
      impl_->derived.clear();
      impl_->derived_version = impl_->version;
    }
    std::any& slot = impl_->derived[key];
    if (!slot.has_value()) slot = T(make());
    return std::any_cast<T>(slot);
  }

  /// Frees what was derived from this tensor.
  void forget_derived() const { impl_->derived.clear(); }

  /// True when nobody else shares this handle or its storage, so the values may be overwritten.
  bool unique() const { return impl_.use_count() == 1 && impl_->storage.use_count() == 1; }
  const std::shared_ptr<TensorImpl>& impl() const { return impl_; }
  bool same_as(const Tensor& other) const { return impl_ == other.impl_; }

 private:
  static Tensor from_bytes(const void* values, const Shape& shape, DType dtype, Device device);
  void read_into(void* values) const;

  std::shared_ptr<TensorImpl> impl_;
};

}  // namespace mixpl
