#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

namespace mixpl {

/// Where a tensor lives: {cpu, 0} or {cuda, index}.
struct Device {
  enum class Kind : unsigned char { cpu, cuda };
  Kind kind = Kind::cpu;
  int index = 0;

  static Device cpu() { return {}; }
  static Device cuda(int index) { return {Kind::cuda, index}; }
  /// Parses "cpu", "cuda", "cuda:1" or "auto" (the first usable GPU, else the CPU).
  /// @throws DeviceError when it is not usable here, saying why
  static Device parse(const std::string& text);

  bool is_cpu() const { return kind == Kind::cpu; }
  bool is_cuda() const { return kind == Kind::cuda; }
  bool operator==(const Device&) const = default;
};

std::string to_string(Device device);
inline std::ostream& operator<<(std::ostream& out, Device device) {
  return out << to_string(device);
}

struct DeviceInfo {
  Device device;
  std::string name;
  bool usable = true;
  std::string reason;  // why it is not usable
  int64_t total_bytes = 0, free_bytes = 0;
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
};

/// The CPU first, then every GPU that the driver shows.
std::vector<DeviceInfo> list_devices();
/// Why no GPU can be used here, "" when one can.
std::string cuda_reason();
/// GPU architectures with code in this binary, e.g. {"80", "90a"}; empty without CUDA.
std::vector<std::string> cuda_architectures();

}  // namespace mixpl
