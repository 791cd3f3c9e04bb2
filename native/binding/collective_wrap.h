// The JavaScript handle of what sums over processes.
#pragma once

#include <napi.h>

#include <memory>

#include "binding/convert.h"
#include "distributed/collective.h"

namespace mixpl::binding {

/// What a handle holds.
struct OpenCollective {
  std::unique_ptr<Collective> collective;
  CollectivePlace place;
};

class CollectiveWrap : public Napi::ObjectWrap<CollectiveWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit CollectiveWrap(const Napi::CallbackInfo& info);

  void hold(std::shared_ptr<OpenCollective> open) { open_ = std::move(open); }
  /// @throws DisposedError after abort()
  std::shared_ptr<OpenCollective> open(const char* call) const;

 private:
  Napi::Value address(const Napi::CallbackInfo& info);
  Napi::Value connect(const Napi::CallbackInfo& info);  // [async]
  Napi::Value abort(const Napi::CallbackInfo& info);    // [sync] idempotent

  std::shared_ptr<OpenCollective> open_;
};

/// @throws ERR_DTYPE when it is none, ERR_DISPOSED after abort()
std::shared_ptr<OpenCollective> collective_at(const Args& args, size_t i, const char* name);

}  // namespace mixpl::binding
