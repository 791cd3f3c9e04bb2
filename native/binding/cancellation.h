// What JavaScript gives along with a job to say later that nobody waits for it any more.
#pragma once

#include <napi.h>

#include "binding/convert.h"
#include "binding/executor.h"

namespace mixpl::binding {

class CancellationWrap : public Napi::ObjectWrap<CancellationWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit CancellationWrap(const Napi::CallbackInfo& info);

  Cancelled cancelled() const { return cancelled_; }

 private:
  Napi::Value cancel(const Napi::CallbackInfo& info);  // [sync] idempotent

  std::shared_ptr<std::atomic<bool>> cancelled_ = std::make_shared<std::atomic<bool>>(false);
};

/// Null where the argument is absent. @throws ERR_DTYPE when it is something else
Cancelled cancelled_at(const Args& args, size_t i, const char* name);

}  // namespace mixpl::binding
