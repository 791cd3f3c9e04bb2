#include <dlfcn.h>

#include <filesystem>

#include "distributed/collective.h"
#include "distributed/gloo_plugin/host_sum.h"

namespace mixpl {
namespace {

// Beside the library that this code is in.
std::string plugin_path() {
  Dl_info self{};
  if (!dladdr(reinterpret_cast<const void*>(&open_gloo), &self) || !self.dli_fname)
    return "mixpl_gloo.so";
  return (std::filesystem::absolute(self.dli_fname).parent_path() / "mixpl_gloo.so").string();
}

OpenHostSum load_plugin() {
  const std::string path = plugin_path();
  // Stays open: threads of Gloo's may run to the end of the process.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* reason = dlerror();
    throw StateError(
        str("processes: need the plug-in for Gloo beside the addon (packages have it; a build "
            "makes it where libgloo-dev is installed), got ",
            reason ? reason : path));
  }
  const auto open = reinterpret_cast<OpenHostSum>(dlsym(library, kOpenHostSum));
  if (!open) throw StateError(str("processes: ", path, " must have ", kOpenHostSum));
  return open;
}

// What the plug-in throws, by the name of what was done.
template <class Do>
auto told(const char* what, Do&& act) {
  try {
    return act();
  } catch (const Error&) {
    throw;
  } catch (const std::exception& e) {
    throw StateError(str("processes: ", what, ": ", e.what()));
  }
}

class GlooCollective : public Collective {
 public:
  explicit GlooCollective(const CollectivePlace& place)
      : sum_(told("opening Gloo",
                  [&] { return load_plugin()(place.rank, place.processes, place.host); })) {}

  std::string address() const override { return sum_->address(); }
  void connect(const std::vector<std::string>& addresses) override {
    told("connecting by Gloo", [&] { sum_->connect(addresses); });
  }
  void sum(Tensor& values) override {
    Tensor on_host = values.to(Device::cpu());
    told("summing by Gloo", [&] { sum_->sum(on_host.data<float>(), on_host.numel()); });
    if (!values.device().is_cpu()) values.copy_from(on_host);
  }
  void abort() override {
    told("ending Gloo", [&] { sum_->abort(); });
  }

 private:
  std::unique_ptr<HostSum> sum_;
};

}  // namespace

std::unique_ptr<Collective> open_gloo(const CollectivePlace& place) {
  return std::make_unique<GlooCollective>(place);
}

bool has_gloo() {
  try {
    load_plugin();
    return true;
  } catch (const StateError&) {
    return false;
  }
}

}  // namespace mixpl
