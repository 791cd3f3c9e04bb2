#include "binding/addon.h"

#include <omp.h>

#include <algorithm>
#include <dnnl.hpp>

#include "binding/convert.h"
#include "core/allocator.h"
#include "core/cuda/emulation_settings.h"
#include "core/cuda/runtime.h"

namespace mixpl::binding {
namespace {

// buildInfo() -> what this binary was built with, what the machine offers, and the threads that
// work.
Napi::Value build_info(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Object out = Napi::Object::New(env);
  const dnnl_version_t* v = dnnl_version();
  out.Set("onednnVersion", str(v->major, ".", v->minor, ".", v->patch));
  const int chosen = env.GetInstanceData<AddonState>()->num_threads;
  out.Set("threads", std::min(chosen > 0 ? chosen : omp_get_max_threads(), omp_get_thread_limit()));
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
  Napi::Array architectures = Napi::Array::New(env);
  for (const std::string& name : cuda_architectures())
    architectures.Set(architectures.Length(), name);
  out.Set("cudaCompiled", architectures.Length() > 0);
  out.Set("cudaArchitectures", architectures);
  return out;
}

// devices() -> the CPU, then every GPU that the driver shows.
Napi::Value devices_js(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    Napi::Array out = Napi::Array::New(env);
    for (const DeviceInfo& d : list_devices()) {
      Napi::Object one = Napi::Object::New(env);
      one.Set("id", to_string(d.device));
      one.Set("name", d.name);
      one.Set("usable", d.usable);
      if (!d.usable) one.Set("reason", d.reason);
      if (d.device.is_cuda()) {
        one.Set("memoryBytes", static_cast<double>(d.total_bytes));
        one.Set("freeBytes", static_cast<double>(d.free_bytes));
        one.Set("computeCapability", str(d.major, ".", d.minor));
        one.Set("multiprocessors", d.multiprocessors);
      }
      out.Set(out.Length(), one);
    }
    return out;
  });
}

// cudaReason() -> why no GPU can be used; null when one can.
Napi::Value cuda_reason_js(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const std::string reason = cuda_reason();
    if (reason.empty()) return info.Env().Null();
    return Napi::String::New(info.Env(), reason);
  });
}

// resolveDevice('auto' | 'cpu' | 'cuda' | 'cuda:1') -> the device's own name.
Napi::Value resolve_device(const Napi::CallbackInfo& info) {
  const Args args(info, "device");
  return guarded(args, [&]() -> Napi::Value {
    return Napi::String::New(info.Env(), to_string(Device::parse(args.text(0, "device"))));
  });
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

// memoryStats(device = 'cpu') -> bytes in use, peak, cached, and how often the system was asked for
// memory and a GPU was waited for.
Napi::Value memory_stats_js(const Napi::CallbackInfo& info) {
  const Args args(info, "memoryStats");
  const MemoryStats stats = guarded(args, [&] { return memory_stats(args.device(0, "device")); });
  Napi::Object out = Napi::Object::New(info.Env());
  out.Set("liveBytes", static_cast<double>(stats.live_bytes));
  out.Set("peakLiveBytes", static_cast<double>(stats.peak_live_bytes));
  out.Set("cachedBytes", static_cast<double>(stats.cached_bytes));
  out.Set("systemAllocations", static_cast<double>(stats.system_allocations));
  out.Set("synchronisations", static_cast<double>(stats.synchronisations));
  return out;
}

Napi::Value reset_peak_memory_js(const Napi::CallbackInfo& info) {
  const Args args(info, "resetPeakMemory");
  guarded(args, [&] { reset_peak_memory(args.device(0, "device")); });
  return info.Env().Undefined();
}

// synchronize(device) -> Promise: all work given to the device so far is done.
Napi::Value synchronize_js(const Napi::CallbackInfo& info) {
  const Args args(info, "synchronize");
  return guarded(args, [&]() -> Napi::Value {
    const Device device = args.device(0, "device");
    return executor_for(info.Env(), device).post(info.Env(), "synchronize", [device]() -> Finish {
      if (device.is_cuda()) {
        cuda::use_device(device.index);
        cuda::synchronize();
      }
      return [](Napi::Env env) { return env.Undefined(); };
    });
  });
}

// setEmulation(orderSeed, poison): how an emulated device runs its kernels from now on.
Napi::Value set_emulation(const Napi::CallbackInfo& info) {
  const Args args(info, "setEmulation");
  const int64_t seed = args.integer(0, "orderSeed"), poison = args.integer(1, "poison");
  if (seed < 0 || poison < 0 || poison > 255) args.fail("poison", "a byte", args.value(1));
  cuda::set_emulation(static_cast<uint64_t>(seed), static_cast<int>(poison));
  return info.Env().Undefined();
}

// setEmulatedFaults({memoryBytes, launchesToFail, launchesToLoss}): what goes wrong from now on.
Napi::Value set_emulated_faults(const Napi::CallbackInfo& info) {
  const Args args(info, "setEmulatedFaults");
  const Napi::Object faults = args.object(0, "faults");
  const auto number = [&](const char* name) {
    const Napi::Value value = faults.Get(name);
    return value.IsNumber() ? value.As<Napi::Number>().Int64Value() : -1;
  };
  cuda::set_emulated_faults(
      {number("memoryBytes"), number("launchesToFail"), number("launchesToLoss")});
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
  exports.Set("devices", Napi::Function::New(env, devices_js));
  exports.Set("cudaReason", Napi::Function::New(env, cuda_reason_js));
  exports.Set("resolveDevice", Napi::Function::New(env, resolve_device));
  exports.Set("setErrorClass", Napi::Function::New(env, set_error_class));
  exports.Set("setNumThreads", Napi::Function::New(env, set_num_threads));
  if (cuda::is_emulated()) {
    exports.Set("setEmulation", Napi::Function::New(env, set_emulation));
    exports.Set("setEmulatedFaults", Napi::Function::New(env, set_emulated_faults));
  }
  exports.Set("memoryStats", Napi::Function::New(env, memory_stats_js));
  exports.Set("resetPeakMemory", Napi::Function::New(env, reset_peak_memory_js));
  exports.Set("synchronize", Napi::Function::New(env, synchronize_js));
  register_tensor(env, exports);
  register_ops(env, exports);
  register_detector(env, exports);
  register_collective(env, exports);
  register_cancellation(env, exports);
  register_eval(env, exports);
  register_image(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(mixpl, init)

}  // namespace mixpl::binding
