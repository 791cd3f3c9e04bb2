#include "core/device.h"

#include <charconv>

#include "core/cuda/runtime.h"
#include "core/error.h"

namespace mixpl {
namespace {

Device parse_cuda(const std::string& text) {
  int index = 0;
  if (text.size() > 4) {
    const char *begin = text.data() + 5, *end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(begin, end, index);
    if (error != std::errc() || stop != end || index < 0)
      throw DeviceError(
          str("device: must be 'cpu', 'cuda', 'cuda:<index>' or 'auto', got '", text, "'"));
  }
  const std::string reason = cuda::unusable_reason();
  if (!reason.empty()) throw DeviceError(str("device: ", reason, ", got '", text, "'; try 'cpu'"));
  const auto devices = cuda::list_devices();
  if (text == "cuda") {  // the first that works
    for (const DeviceInfo& info : devices)
      if (info.usable) return info.device;
  }
  if (index >= static_cast<int>(devices.size()))
    throw DeviceError(str("device: must be 'cpu' or below 'cuda:", devices.size(),
                          "' (GPUs of this machine), got '", text, "'"));
  if (!devices[index].usable)
    throw DeviceError(str("device: ", devices[index].reason, ", got '", text, "'"));
  return Device::cuda(index);
}

}  // namespace

Device Device::parse(const std::string& text) {
  if (text == "cpu") return cpu();
  if (text == "auto") {
    // An emulated GPU is for tests that ask for it: it is slower than the CPU that it runs on.
    return cuda::unusable_reason().empty() && !cuda::is_emulated() ? parse_cuda("cuda") : cpu();
  }
  if (text == "cuda" || text.rfind("cuda:", 0) == 0) return parse_cuda(text);
  throw DeviceError(
      str("device: must be 'cpu', 'cuda', 'cuda:<index>' or 'auto', got '", text, "'"));
}

std::string to_string(Device device) {
  return device.is_cpu() ? "cpu" : str("cuda:", device.index);
}

std::vector<DeviceInfo> list_devices() {
  DeviceInfo cpu;
  cpu.name = "CPU";
  std::vector<DeviceInfo> devices{cpu};
  for (DeviceInfo& info : cuda::list_devices()) devices.push_back(std::move(info));
  return devices;
}

std::string cuda_reason() { return cuda::unusable_reason(); }
std::vector<std::string> cuda_architectures() { return cuda::architectures(); }

}  // namespace mixpl
