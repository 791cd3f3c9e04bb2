// Maps native errors to JavaScript ones; the only place that does.
#pragma once

#include <napi.h>

#include <string>

namespace mixpl::binding {

struct ErrorInfo {
  std::string code, message;
};

/// Describes the exception in flight; call from a catch block. Memory runs out far below the `call`
/// that a user knows; other errors name theirs.
ErrorInfo describe_current_exception(const std::string& call = "");
/// A MixplError (a plain Error with `code` until lib/native.ts handed the class over).
Napi::Error make_error(Napi::Env env, const ErrorInfo& info);

/// Runs f on the JS thread; native errors become JavaScript exceptions.
template <typename F>
auto guarded(Napi::Env env, F&& f, const std::string& call = "") -> decltype(f()) {
  try {
    return f();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw make_error(env, describe_current_exception(call));
  }
}

}  // namespace mixpl::binding
