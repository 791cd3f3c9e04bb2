#include "binding/collective_wrap.h"

#include "binding/addon.h"

namespace mixpl::binding {
namespace {

constexpr napi_type_tag kCollectiveTag = {0x6d6978706c436f6cULL, 0x6c65637400000001ULL};

// openCollective('gloo' | 'nccl', rank, processes, device, host) -> Promise<Collective>
Napi::Value open_collective(const Napi::CallbackInfo& info) {
  const Args args(info, "openCollective");
  return guarded(args, [&]() -> Napi::Value {
    const std::string kind = args.text(0, "kind");
    if (kind != "gloo" && kind != "nccl")
      throw ConfigError(str("openCollective: kind must be 'gloo' or 'nccl', got '", kind, "'"));
    const int64_t rank = args.integer(1, "rank"), processes = args.integer(2, "processes");
    if (processes < 1 || processes > 4096 || rank < 0 || rank >= processes)
      throw RangeError(
          str("openCollective: rank must be in [0, processes) and processes in [1, "
              "4096], got ",
              rank, " of ", processes));
    const CollectivePlace place{static_cast<int>(rank), static_cast<int>(processes),
                                args.device(3, "device"), args.text(4, "host")};
    return executor_for(info.Env(), place.device)
        .post(info.Env(), "openCollective", [=]() -> Finish {
          const auto open = std::make_shared<OpenCollective>();
          open->collective = kind == "nccl" ? open_nccl(place) : open_gloo(place);
          open->place = place;
          return [open](Napi::Env env) -> Napi::Value {
            const Napi::Object object =
                env.GetInstanceData<AddonState>()->collective_constructor.New({});
            CollectiveWrap::Unwrap(object)->hold(open);
            return object;
          };
        });
  });
}

// collectives() -> names of those whose libraries are here.
Napi::Value collectives(const Napi::CallbackInfo& info) {
  Napi::Array names = Napi::Array::New(info.Env());
  if (has_gloo()) names.Set(names.Length(), "gloo");
  if (has_nccl()) names.Set(names.Length(), "nccl");
  return names;
}

}  // namespace

Napi::Function CollectiveWrap::define(Napi::Env env) {
  return DefineClass(env, "Collective",
                     {InstanceAccessor<&CollectiveWrap::address>("address"),
                      InstanceMethod<&CollectiveWrap::connect>("connect"),
                      InstanceMethod<&CollectiveWrap::abort>("abort")});
}

CollectiveWrap::CollectiveWrap(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<CollectiveWrap>(info) {
  info.This().As<Napi::Object>().TypeTag(&kCollectiveTag);
}

std::shared_ptr<OpenCollective> CollectiveWrap::open(const char* call) const {
  if (!open_) throw DisposedError(str(call, ": the processes were parted"));
  return open_;
}

Napi::Value CollectiveWrap::address(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const std::string address = open("collective.address")->collective->address();
    return to_js(info.Env(), std::vector<uint8_t>(address.begin(), address.end()));
  });
}

// connect(addresses: Uint8Array[]), by rank
Napi::Value CollectiveWrap::connect(const Napi::CallbackInfo& info) {
  const Args args(info, "collective.connect");
  return guarded(args, [&]() -> Napi::Value {
    const auto open = this->open("collective.connect");
    const Napi::Value list = args.value(0);
    const auto processes = static_cast<uint32_t>(open->place.processes);
    if (!list.IsArray() || list.As<Napi::Array>().Length() != processes)
      args.fail("addresses", str("a list of ", processes), list);
    std::vector<std::string> addresses;
    for (uint32_t i = 0; i < processes; ++i) {
      const auto bytes =
          args.values_of<uint8_t>(list.As<Napi::Array>().Get(i), "an entry of addresses");
      addresses.emplace_back(bytes.begin(), bytes.end());
    }
    return executor_for(info.Env(), open->place.device)
        .post(info.Env(), "collective.connect", [open, addresses]() -> Finish {
          open->collective->connect(addresses);
          return [](Napi::Env env) { return env.Undefined(); };
        });
  });
}

Napi::Value CollectiveWrap::abort(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    if (const auto open = std::exchange(open_, nullptr)) open->collective->abort();
    return info.Env().Undefined();
  });
}

std::shared_ptr<OpenCollective> collective_at(const Args& args, size_t i, const char* name) {
  const Napi::Value value = args.value(i);
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kCollectiveTag))
    args.fail(name, "a Collective", value);
  return CollectiveWrap::Unwrap(value.As<Napi::Object>())->open(name);
}

void register_collective(Napi::Env env, Napi::Object exports) {
  env.GetInstanceData<AddonState>()->collective_constructor =
      Napi::Persistent(CollectiveWrap::define(env));
  exports.Set("openCollective", Napi::Function::New(env, open_collective));
  exports.Set("collectives", Napi::Function::New(env, collectives));
}

}  // namespace mixpl::binding
