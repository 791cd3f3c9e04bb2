// JavaScript arguments to C++ values, checked; C++ values to JavaScript ones.
#pragma once

#include <napi.h>

#include <span>
#include <string>
#include <vector>

#include "binding/errors.h"
#include "core/tensor.h"

namespace mixpl::binding {

/// Arguments of one call. Every getter throws a JS error naming the call and the argument.
class Args {
 public:
  Args(const Napi::CallbackInfo& info, const char* call) : info_(info), call_(call) {}

  Napi::Env env() const { return info_.Env(); }
  const char* call() const { return call_; }
  bool present(size_t i) const {
    return i < info_.Length() && !info_[i].IsUndefined() && !info_[i].IsNull();
  }
  double number(size_t i, const char* name) const;
  int64_t integer(size_t i, const char* name) const;
  bool boolean(size_t i, const char* name) const;
  std::string text(size_t i, const char* name) const;
  /// A device by its name; the CPU when absent.
  Device device(size_t i, const char* name) const;
  Napi::Object object(size_t i, const char* name) const;
  /// A wrapped tensor that is not disposed.
  Tensor tensor(size_t i, const char* name) const;
  std::vector<Tensor> tensors(size_t i, const char* name) const;
  /// Copies a typed array; its element type must be exactly T.
  template <typename T>
  std::vector<T> values(size_t i, const char* name) const {
    return values_of<T>(i < info_.Length() ? info_[i] : env().Undefined(), name);
  }
  template <typename T>
  std::vector<T> values_of(const Napi::Value& value, const char* name) const;
  /// A Float32Array's own memory, for a job to fill: see bytes().
  std::span<float> floats(size_t i, const char* name) const;
  /// Bytes of a typed array or buffer without a copy. A job may only read them when nobody writes
  /// into them or transfers them meanwhile; pass the value in `keep` of the job then.
  std::pair<const uint8_t*, size_t> bytes(const Napi::Value& value, const char* name) const;
  Napi::Value value(size_t i) const { return i < info_.Length() ? info_[i] : env().Undefined(); }

  [[noreturn]] void fail(const char* name, const std::string& expected,
                         const Napi::Value& got) const;

 private:
  const Napi::CallbackInfo& info_;
  const char* call_;
};

/// The same of a call that errors for want of memory name.
template <class F>
auto guarded(const Args& args, F&& f) -> decltype(f()) {
  return guarded(args.env(), f, args.call());
}

Napi::Float32Array to_js(Napi::Env env, const std::vector<float>& values);
Napi::Float64Array to_js(Napi::Env env, const std::vector<double>& values);
Napi::Int32Array to_js(Napi::Env env, const std::vector<int32_t>& values);
Napi::Uint8Array to_js(Napi::Env env, const std::vector<uint8_t>& values);
/// A JS handle that owns `tensor`.
Napi::Value to_js(Napi::Env env, const Tensor& tensor);
Napi::Array to_js(Napi::Env env, const std::vector<Tensor>& tensors);
Napi::Array to_js(Napi::Env env, const Shape& shape);

}  // namespace mixpl::binding
