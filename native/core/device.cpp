#include "core/device.h"

#include "core/error.h"

namespace mixpl {

Device Device::parse(const std::string& text) {
  if (text == "cpu" || text == "auto") return cpu();
  if (text == "cuda" || text.rfind("cuda:", 0) == 0)
    throw DeviceError(str("device: this build has no CUDA backend, got '", text, "'; try 'cpu'"));
  throw DeviceError(
      str("device: must be 'cpu', 'cuda', 'cuda:<index>' or 'auto', got '", text, "'"));
}

std::string to_string(Device device) {
  return device.is_cpu() ? "cpu" : str("cuda:", device.index);
}

}  // namespace mixpl
