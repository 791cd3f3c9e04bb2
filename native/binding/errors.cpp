#include "binding/errors.h"

#include <new>

#include "binding/addon.h"
#include "core/error.h"

namespace mixpl::binding {

ErrorInfo describe_current_exception(const std::string& call) {
  const std::string prefix = call.empty() ? "" : call + ": ";
  try {
    throw;
  } catch (const OutOfMemoryError& e) {
    return {e.code(), prefix + e.what()};
  } catch (const mixpl::Error& e) {
    return {e.code(), e.what()};
  } catch (const std::bad_alloc&) {
    return {"ERR_OUT_OF_MEMORY", prefix + "the system has no memory left for this call"};
  } catch (const std::exception& e) {
    return {"ERR_INTERNAL", e.what()};
  } catch (...) {
    return {"ERR_INTERNAL", "unknown native error"};
  }
}

Napi::Error make_error(Napi::Env env, const ErrorInfo& info) {
  const AddonState* state = env.GetInstanceData<AddonState>();
  if (state && !state->error_constructor.IsEmpty())
    return Napi::Error(env, state->error_constructor.New({Napi::String::New(env, info.code),
                                                          Napi::String::New(env, info.message)}));
  Napi::Error error = Napi::Error::New(env, info.message);
  error.Set("code", Napi::String::New(env, info.code));
  return error;
}

}  // namespace mixpl::binding
