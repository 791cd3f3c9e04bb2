#pragma once

#include <ostream>
#include <string>

namespace mixpl {

/// Where a tensor lives: {cpu, 0} or {cuda, index}.
struct Device {
  enum class Kind : unsigned char { cpu, cuda };
  Kind kind = Kind::cpu;
  int index = 0;

  static Device cpu() { return {}; }
  static Device cuda(int index) { return {Kind::cuda, index}; }
  /// Parses "cpu", "cuda", "cuda:1" or "auto". @throws DeviceError when it is not usable here.
  static Device parse(const std::string& text);

  bool is_cpu() const { return kind == Kind::cpu; }
  bool is_cuda() const { return kind == Kind::cuda; }
  bool operator==(const Device&) const = default;
};

std::string to_string(Device device);
inline std::ostream& operator<<(std::ostream& out, Device device) {
  return out << to_string(device);
}

}  // namespace mixpl
