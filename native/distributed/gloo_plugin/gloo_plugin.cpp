#include <gloo/allreduce.h>
#include <gloo/context.h>
#include <gloo/math.h>
#include <gloo/transport/address.h>
#include <gloo/transport/context.h>
#include <gloo/transport/tcp/device.h>

#include <chrono>
#include <stdexcept>

#include "distributed/gloo_plugin/host_sum.h"

namespace mixpl {
namespace {

// To connect. A sum waits as long as all processes live: one that ends closes its connections.
constexpr std::chrono::minutes kConnectTimeout{2};
constexpr std::chrono::hours kSumTimeout{24};

// Gloo's own meeting place asks a store that blocks; here addresses are exchanged by the caller.
class Mesh : public gloo::Context {
 public:
  Mesh(int rank, int processes, const std::string& host) : gloo::Context(rank, processes) {
    gloo::transport::tcp::attr attributes(host.c_str());
    device_ = gloo::transport::tcp::CreateDevice(attributes);
    transportContext_ = device_->createContext(rank, processes);
    transportContext_->setTimeout(kConnectTimeout);
    setTimeout(kSumTimeout);
    for (int peer = 0; peer < processes; ++peer) {
      if (peer == rank) continue;
      const std::vector<char> bytes = transportContext_->createPair(peer)->address().bytes();
      own_.emplace_back(bytes.begin(), bytes.end());
    }
  }

  // For each of the others a place to connect to, all of one length.
  std::string address() const {
    std::string all;
    for (const std::string& place : own_) all += place;
    return all;
  }

  void connect(const std::vector<std::string>& addresses) {
    for (int peer = 0; peer < size; ++peer) {
      if (peer == rank) continue;
      const std::string& all = addresses.at(peer);
      const size_t length = all.size() / (size - 1);
      // That process has a place for each other one: none for itself.
      const size_t at = length * (rank < peer ? rank : rank - 1);
      const std::string place = all.substr(at, length);
      transportContext_->getPair(peer)->connect({place.begin(), place.end()});
    }
    transportContext_->setTimeout(kSumTimeout);
  }

 private:
  std::vector<std::string> own_;
};

class GlooSum : public HostSum {
 public:
  GlooSum(int rank, int processes, const std::string& host)
      : mesh_(std::make_shared<Mesh>(rank, processes, host)) {}

  std::string address() const override { return mesh_->address(); }
  void connect(const std::vector<std::string>& addresses) override { mesh_->connect(addresses); }
  void sum(float* values, size_t count) override {
    if (count == 0) return;
    gloo::AllreduceOptions options(std::static_pointer_cast<gloo::Context>(mesh_));
    options.setOutput(values, count);
    options.setAlgorithm(gloo::AllreduceOptions::Algorithm::RING);
    options.setTag(tag_++);
    options.setReduceFunction(
        [](void* out, const void* a, const void* b, size_t n) { gloo::sum<float>(out, a, b, n); });
    gloo::allreduce(options);
  }
  void abort() override { mesh_->closeConnections(); }

 private:
  std::shared_ptr<Mesh> mesh_;
  uint32_t tag_ = 0;
};

}  // namespace
}  // namespace mixpl

extern "C" __attribute__((visibility("default"))) std::unique_ptr<mixpl::HostSum>
mixpl_open_host_sum(int rank, int processes, const std::string& host) {
  return std::make_unique<mixpl::GlooSum>(rank, processes, host);
}
