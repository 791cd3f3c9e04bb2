#include "binding/addon.h"

#include <omp.h>
#include <dnnl.hpp>

#include "binding/convert.h"
#include "core/allocator.h"

namespace mixpl::binding {
namespace {

// buildInfo() -> what this binary was built with and what the machine offers.
Napi::Value build_info(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Object out = Napi::Object::New(env);
  const dnnl_version_t* v = dnnl_version();
  out.Set("onednnVersion", str(v->major, ".", v->minor, ".", v->patch));
  out.Set("threads", omp_get_max_threads());
  Napi::Array features = Napi::Array::New(env);
  const auto add = [&](bool has, const char* name) {
    if (has) features.Set(features.Length(), name);
  };
#if defined(__x86_64__)
  __builtin_cpu_init();
  add(__builtin_cpu_supports("avx2"), "avx2");
  add(__builtin_cpu_supports("fma"), "fma");
  add(__builtin_cpu_supports("avx512f"), "avx512f");
  add(__builtin_cpu_supports("avx512bf16"), "avx512_bf16");
#endif
  out.Set("cpuFeatures", features);
#if defined(MIXPL_WITH_CUDA)
  out.Set("cudaCompiled", true);
#else
  out.Set("cudaCompiled", false);
#endif
  return out;
}

// setNumThreads(n): threads of every executor's loops, from its next job on.
Napi::Value set_num_threads(const Napi::CallbackInfo& info) {
  const Args args(info, "setNumThreads");
  const int64_t threads = args.integer(0, "threads");
  if (threads < 1 || threads > 1024)
    throw make_error(
        info.Env(),
        {"ERR_RANGE", str("setNumThreads: threads must be in [1, 1024], got ", threads)});
  AddonState& state = *info.Env().GetInstanceData<AddonState>();
  state.num_threads = static_cast<int>(threads);
  for (auto& [name, executor] : state.executors) executor->set_num_threads(state.num_threads);
  return info.Env().Undefined();
}

// memoryStats() -> bytes in use, peak, cached, and how often the system was asked for memory.
Napi::Value memory_stats_js(const Napi::CallbackInfo& info) {
  const MemoryStats stats = memory_stats(Device::cpu());
  Napi::Object out = Napi::Object::New(info.Env());
  out.Set("liveBytes", static_cast<double>(stats.live_bytes));
  out.Set("peakLiveBytes", static_cast<double>(stats.peak_live_bytes));
  out.Set("cachedBytes", static_cast<double>(stats.cached_bytes));
  out.Set("systemAllocations", static_cast<double>(stats.system_allocations));
  return out;
}

Napi::Value reset_peak_memory_js(const Napi::CallbackInfo& info) {
  reset_peak_memory(Device::cpu());
  return info.Env().Undefined();
}

// setErrorClass(MixplError): what native errors are made of from now on.
Napi::Value set_error_class(const Napi::CallbackInfo& info) {
  if (info.Length() > 0 && info[0].IsFunction())
    info.Env().GetInstanceData<AddonState>()->error_constructor =
        Napi::Persistent(info[0].As<Napi::Function>());
  return info.Env().Undefined();
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new AddonState);
  exports.Set("buildInfo", Napi::Function::New(env, build_info));
  exports.Set("setErrorClass", Napi::Function::New(env, set_error_class));
  exports.Set("setNumThreads", Napi::Function::New(env, set_num_threads));
  exports.Set("memoryStats", Napi::Function::New(env, memory_stats_js));
  exports.Set("resetPeakMemory", Napi::Function::New(env, reset_peak_memory_js));
  register_tensor(env, exports);
  register_ops(env, exports);
  register_detector(env, exports);
  register_eval(env, exports);
  register_image(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(mixpl, init)

}  // namespace mixpl::binding
