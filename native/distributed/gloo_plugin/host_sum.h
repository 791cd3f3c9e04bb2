// What the plug-in with Gloo offers. It is a library of its own, opened where a training has
// several processes, so that the addon does not need Gloo and what that needs
// (native/DECISIONS.md).
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

namespace mixpl {

/// Sums over processes of numbers in the memory of the host. Throws std::exception alone.
class HostSum {
 public:
  virtual ~HostSum() = default;
  /// Where the others find this process.
  virtual std::string address() const = 0;
  /// @param addresses of all processes, by rank
  virtual void connect(const std::vector<std::string>& addresses) = 0;
  /// Each becomes its sum over the processes, the same bits in all of them.
  virtual void sum(float* values, size_t count) = 0;
  /// Ends a sum under way, which then throws; from any thread.
  virtual void abort() = 0;
};

/// @param host an address of this machine that the others reach
using OpenHostSum = std::unique_ptr<HostSum> (*)(int rank, int processes, const std::string& host);
/// Name of the function of this type that the plug-in has.
constexpr const char* kOpenHostSum = "mixpl_open_host_sum";

}  // namespace mixpl
