// The JavaScript handle of a tensor.
#pragma once

#include <napi.h>

#include "core/tensor.h"

namespace mixpl::binding {

class TensorWrap : public Napi::ObjectWrap<TensorWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit TensorWrap(const Napi::CallbackInfo& info);
  ~TensorWrap() override { release(); }

  void hold(const Tensor& tensor);
  const Tensor& tensor() const { return tensor_; }

 private:
  Napi::Value shape(const Napi::CallbackInfo& info);
  Napi::Value dtype(const Napi::CallbackInfo& info);
  Napi::Value device(const Napi::CallbackInfo& info);
  Napi::Value disposed(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);     // [async] numbers as a typed array
  Napi::Value retain(const Napi::CallbackInfo& info);   // [sync] another handle of the same memory
  Napi::Value dispose(const Napi::CallbackInfo& info);  // [sync] idempotent
  void release();

  Tensor tensor_;
  int64_t reported_ = 0;  // bytes told to V8's garbage collector
};

Napi::Value wrap_tensor(Napi::Env env, const Tensor& tensor);
/// @throws ERR_DTYPE when `value` is no tensor, ERR_DISPOSED after dispose()
Tensor unwrap_tensor(const Napi::Value& value, const char* call, const char* name);

}  // namespace mixpl::binding
