// State per Node environment (workers have their own), and the areas that register their exports.
#pragma once

#include <napi.h>

#include <map>
#include <memory>
#include <string>

#include "binding/executor.h"

namespace mixpl::binding {

struct AddonState {
  std::map<std::string, std::unique_ptr<Executor>> executors;
  int num_threads = 0;  // 0: OpenMP's own choice
  Napi::FunctionReference tensor_constructor;
  Napi::FunctionReference detector_constructor;
  Napi::FunctionReference collective_constructor;
  Napi::FunctionReference cancellation_constructor;
  Napi::FunctionReference error_constructor;  // MixplError, handed over by lib/native.ts
};

void register_tensor(Napi::Env env, Napi::Object exports);
void register_ops(Napi::Env env, Napi::Object exports);
void register_detector(Napi::Env env, Napi::Object exports);
void register_collective(Napi::Env env, Napi::Object exports);
void register_cancellation(Napi::Env env, Napi::Object exports);
void register_eval(Napi::Env env, Napi::Object exports);
void register_image(Napi::Env env, Napi::Object exports);

}  // namespace mixpl::binding
