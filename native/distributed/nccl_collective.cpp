#include <dlfcn.h>

#include <atomic>
#include <cstring>

#include "core/cuda/runtime.h"
#include "distributed/collective.h"

namespace mixpl {
namespace {

constexpr const char* kLibrary = "libnccl.so.2";

// Of nccl.h (version 2), as far as it is used here.
struct UniqueId {
  char bytes[128];
};
using Comm = void*;
constexpr int kSuccess = 0, kFloat32 = 7, kSum = 0;

struct Nccl {
  int (*get_unique_id)(UniqueId*);
  int (*comm_init_rank)(Comm*, int processes, UniqueId, int rank);
  int (*all_reduce)(const void* from, void* to, size_t count, int type, int op, Comm, void* stream);
  int (*comm_abort)(Comm);
  const char* (*error_string)(int);
  std::string missing;  // why it cannot be used
};

Nccl load() {
  Nccl nccl{};
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* reason = dlerror();
    nccl.missing = reason ? reason : "not found";
    return nccl;
  }
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
    if (!function) nccl.missing = str(kLibrary, " has no ", name);
  };
  find(nccl.get_unique_id, "ncclGetUniqueId");
  find(nccl.comm_init_rank, "ncclCommInitRank");
  find(nccl.all_reduce, "ncclAllReduce");
  find(nccl.comm_abort, "ncclCommAbort");
  find(nccl.error_string, "ncclGetErrorString");
  return nccl;
}

const Nccl& nccl() {
  static const Nccl loaded = load();
  return loaded;
}

void check(int code, const char* what) {
  if (code != kSuccess)
    throw StateError(str("processes: ", what, " by NCCL: ", nccl().error_string(code)));
}

class NcclCollective : public Collective {
 public:
  explicit NcclCollective(const CollectivePlace& place) : place_(place) {
    if (!nccl().missing.empty())
      throw StateError(str("processes: NCCL needs ", kLibrary, ", got ", nccl().missing));
    if (!place.device.is_cuda())
      throw StateError(str("processes: NCCL needs GPUs, got ", place.device));
    if (place.rank == 0) check(nccl().get_unique_id(&id_), "making an id");
  }
  ~NcclCollective() override { end(); }

  std::string address() const override {
    return place_.rank == 0 ? std::string(id_.bytes, sizeof id_.bytes) : std::string();
  }
  void connect(const std::vector<std::string>& addresses) override {
    const std::string& first = addresses.at(0);
    if (first.size() != sizeof id_.bytes)
      throw StateError(
          str("processes: NCCL's id must have ", sizeof id_.bytes, " bytes, got ", first.size()));
    std::memcpy(id_.bytes, first.data(), sizeof id_.bytes);
    cuda::use_device(place_.device.index);
    Comm comm = nullptr;
    check(nccl().comm_init_rank(&comm, place_.processes, id_, place_.rank), "connecting");
    comm_ = comm;
  }
  void sum(Tensor& values) override {
    Comm comm = comm_;
    if (!comm) throw StateError("processes: NCCL is not connected, or was ended");
    cuda::use_device(place_.device.index);
    float* data = values.data<float>();
    check(
        nccl().all_reduce(data, data, values.numel(), kFloat32, kSum, comm, cuda::current_stream()),
        "summing");
  }
  void abort() override { end(); }

 private:
  // Not ncclCommDestroy, which waits for processes that may have gone.
  void end() {
    if (Comm comm = comm_.exchange(nullptr)) nccl().comm_abort(comm);
  }

  CollectivePlace place_;
  UniqueId id_{};
  std::atomic<Comm> comm_ = nullptr;
};

}  // namespace

std::unique_ptr<Collective> open_nccl(const CollectivePlace& place) {
  return std::make_unique<NcclCollective>(place);
}

bool has_nccl() { return nccl().missing.empty(); }

}  // namespace mixpl
