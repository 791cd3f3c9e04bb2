// Typed errors of the native core. A user's mistake ends in one of these, never in an abort.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace mixpl {

/// Concatenates anything that streams: str("got ", 3, " boxes").
template <typename... Parts>
std::string str(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

/// Base of every deliberate error. `code()` is stable and reaches JavaScript as `MixplError.code`.
class Error : public std::runtime_error {
 public:
  Error(const char* code, const std::string& message) : std::runtime_error(message), code_(code) {}
  const char* code() const { return code_; }

 private:
  const char* code_;  // a string literal
};

#define MIXPL_ERROR_TYPE(Name, CODE)                                    \
  class Name : public Error {                                           \
   public:                                                              \
    explicit Name(const std::string& message) : Error(CODE, message) {} \
  }
MIXPL_ERROR_TYPE(ShapeError, "ERR_SHAPE");
MIXPL_ERROR_TYPE(DTypeError, "ERR_DTYPE");
MIXPL_ERROR_TYPE(DeviceError, "ERR_DEVICE");
MIXPL_ERROR_TYPE(RangeError, "ERR_RANGE");
MIXPL_ERROR_TYPE(ConfigError, "ERR_CONFIG");
MIXPL_ERROR_TYPE(DataError, "ERR_DATA");
MIXPL_ERROR_TYPE(BadFileError, "ERR_BAD_FILE");
MIXPL_ERROR_TYPE(OutOfMemoryError, "ERR_OUT_OF_MEMORY");
MIXPL_ERROR_TYPE(DisposedError, "ERR_DISPOSED");
MIXPL_ERROR_TYPE(StateError, "ERR_STATE");
MIXPL_ERROR_TYPE(DivergedError, "ERR_DIVERGED");
#undef MIXPL_ERROR_TYPE

}  // namespace mixpl
