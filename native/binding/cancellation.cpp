#include "binding/cancellation.h"

#include "binding/addon.h"

namespace mixpl::binding {
namespace {

constexpr napi_type_tag kCancellationTag = {0x6d6978706c43616eULL, 0x63656c6c00000001ULL};

// cancellation() -> Cancellation
Napi::Value make_cancellation(const Napi::CallbackInfo& info) {
  return info.Env().GetInstanceData<AddonState>()->cancellation_constructor.New({});
}

}  // namespace

Napi::Function CancellationWrap::define(Napi::Env env) {
  return DefineClass(env, "Cancellation", {InstanceMethod<&CancellationWrap::cancel>("cancel")});
}

CancellationWrap::CancellationWrap(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<CancellationWrap>(info) {
  info.This().As<Napi::Object>().TypeTag(&kCancellationTag);
}

Napi::Value CancellationWrap::cancel(const Napi::CallbackInfo& info) {
  *cancelled_ = true;
  return info.Env().Undefined();
}

Cancelled cancelled_at(const Args& args, size_t i, const char* name) {
  if (!args.present(i)) return nullptr;
  const Napi::Value value = args.value(i);
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kCancellationTag))
    args.fail(name, "a cancellation", value);
  return CancellationWrap::Unwrap(value.As<Napi::Object>())->cancelled();
}

void register_cancellation(Napi::Env env, Napi::Object exports) {
  env.GetInstanceData<AddonState>()->cancellation_constructor =
      Napi::Persistent(CancellationWrap::define(env));
  exports.Set("cancellation", Napi::Function::New(env, make_cancellation));
}

}  // namespace mixpl::binding
