#include "binding/tensor_wrap.h"

#include "binding/addon.h"
#include "binding/convert.h"

namespace mixpl::binding {
namespace {

constexpr napi_type_tag kTensorTag = {0x6d6978706c54656eULL, 0x736f720000000001ULL};

// createTensor(typedArray, shape, dtype, device = 'cpu') -> Tensor; dtype 'bf16' takes a
// Uint16Array.
Napi::Value create_tensor(const Napi::CallbackInfo& info) {
  const Args args(info, "Tensor.from");
  return guarded(args, [&]() -> Napi::Value {
    if (!args.value(1).IsArray()) args.fail("shape", "an array of sizes", args.value(1));
    const auto js_shape = args.value(1).As<Napi::Array>();
    std::vector<int64_t> sizes;
    for (uint32_t i = 0; i < js_shape.Length(); ++i) {
      const Napi::Value v = js_shape.Get(i);
      if (!v.IsNumber() || v.As<Napi::Number>().Int64Value() < 0)
        args.fail("shape", "an array of sizes >= 0", v);
      sizes.push_back(v.As<Napi::Number>().Int64Value());
    }
    const std::string dtype = args.text(2, "dtype");
    const Shape shape(sizes);
    const Device device = args.device(3, "device");
    if (dtype == "f32")
      return to_js(info.Env(), Tensor::from(args.values<float>(0, "data"), shape, device));
    if (dtype == "i32")
      return to_js(info.Env(), Tensor::from(args.values<int32_t>(0, "data"), shape, device));
    if (dtype == "u8")
      return to_js(info.Env(), Tensor::from(args.values<uint8_t>(0, "data"), shape, device));
    if (dtype == "bf16") {
      const auto bits = args.values<uint16_t>(0, "data");
      std::vector<bfloat16> values(bits.size());
      if (!bits.empty()) std::memcpy(values.data(), bits.data(), bits.size() * 2);
      return to_js(info.Env(), Tensor::from(values, shape, device));
    }
    args.fail("dtype", "'f32', 'bf16', 'i32' or 'u8'", args.value(2));
  });
}

// [async] copyTensor(from, to) -> Promise: the numbers of `from` into `to`, of the same shape and
// dtype.
Napi::Value copy_tensor(const Napi::CallbackInfo& info) {
  const Args args(info, "copyTensor");
  return guarded(args, [&]() -> Napi::Value {
    const Tensor from = args.tensor(0, "from");
    Tensor to = args.tensor(1, "to");
    return executor_for(info.Env(), to.device())
        .post(info.Env(), "copyTensor", [from, to]() mutable -> Finish {
          to.copy_from(from);
          return [](Napi::Env env) { return env.Undefined(); };
        });
  });
}

}  // namespace

Napi::Function TensorWrap::define(Napi::Env env) {
  return DefineClass(
      env, "Tensor",
      {InstanceAccessor<&TensorWrap::shape>("shape"), InstanceAccessor<&TensorWrap::dtype>("dtype"),
       InstanceAccessor<&TensorWrap::device>("device"),
       InstanceAccessor<&TensorWrap::disposed>("disposed"),
       InstanceMethod<&TensorWrap::read>("read"), InstanceMethod<&TensorWrap::retain>("retain"),
       InstanceMethod<&TensorWrap::dispose>("dispose")});
}

TensorWrap::TensorWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<TensorWrap>(info) {
  info.This().As<Napi::Object>().TypeTag(&kTensorTag);
}

void TensorWrap::hold(const Tensor& tensor) {
  tensor_ = tensor;
  reported_ = tensor.nbytes();
  Napi::MemoryManagement::AdjustExternalMemory(Env(), reported_);
}

void TensorWrap::release() {
  if (reported_) Napi::MemoryManagement::AdjustExternalMemory(Env(), -reported_);
  reported_ = 0;
  tensor_ = Tensor();
}

Napi::Value TensorWrap::shape(const Napi::CallbackInfo& info) {
  return to_js(info.Env(), unwrap_tensor(info.This(), "Tensor.shape", "this").shape());
}
Napi::Value TensorWrap::dtype(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(),
                           name_of(unwrap_tensor(info.This(), "Tensor.dtype", "this").dtype()));
}
Napi::Value TensorWrap::device(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(),
                           to_string(unwrap_tensor(info.This(), "Tensor.device", "this").device()));
}
Napi::Value TensorWrap::disposed(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), !tensor_.defined());
}

Napi::Value TensorWrap::read(const Napi::CallbackInfo& info) {
  Tensor tensor = unwrap_tensor(info.This(), "Tensor.read", "this");
  Executor& executor = executor_for(info.Env(), tensor.device());
  return executor.post(info.Env(), "Tensor.read", [tensor]() -> Finish {
    switch (tensor.dtype()) {
      case DType::i32:
        return [v = tensor.to_vector<int32_t>()](Napi::Env env) { return to_js(env, v); };
      case DType::u8:
        return [v = tensor.to_vector<uint8_t>()](Napi::Env env) { return to_js(env, v); };
      default:
        return
            [v = tensor.to(DType::f32).to_vector<float>()](Napi::Env env) { return to_js(env, v); };
    }
  });
}

Napi::Value TensorWrap::retain(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    return wrap_tensor(info.Env(), unwrap_tensor(info.This(), "Tensor.retain", "this"));
  });
}

Napi::Value TensorWrap::dispose(const Napi::CallbackInfo& info) {
  release();
  return info.Env().Undefined();
}

Napi::Value wrap_tensor(Napi::Env env, const Tensor& tensor) {
  const Napi::Object object = env.GetInstanceData<AddonState>()->tensor_constructor.New({});
  TensorWrap::Unwrap(object)->hold(tensor);
  return object;
}

Tensor unwrap_tensor(const Napi::Value& value, const char* call, const char* name) {
  const Napi::Env env = value.Env();
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kTensorTag))
    throw make_error(env,
                     {"ERR_DTYPE", str(call, ": ", name, " must be a Tensor, got another value")});
  const Tensor& tensor = TensorWrap::Unwrap(value.As<Napi::Object>())->tensor();
  if (!tensor.defined())
    throw make_error(env, {"ERR_DISPOSED", str(call, ": ", name, " was disposed")});
  return tensor;
}

void register_tensor(Napi::Env env, Napi::Object exports) {
  Napi::Function constructor = TensorWrap::define(env);
  env.GetInstanceData<AddonState>()->tensor_constructor = Napi::Persistent(constructor);
  exports.Set("createTensor", Napi::Function::New(env, create_tensor));
  exports.Set("copyTensor", Napi::Function::New(env, copy_tensor));
}

}  // namespace mixpl::binding
