// What the CPU ops share of oneDNN: engine, stream, packed weights, a cache of primitives.
// oneDNN 2.x; version 3 dropped the operation descriptors that ops/*_cpu.cpp build.
#pragma once

#include <dnnl.hpp>

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "core/tensor.h"

static_assert(DNNL_VERSION_MAJOR == 2, "the CPU ops are written for oneDNN 2.x");

namespace mixpl::onednn {

dnnl::engine& engine();
dnnl::stream& stream();
dnnl::memory::data_type type_of(DType dtype);
/// Whether oneDNN has kernels for bf16 on this processor (it emulates from AVX-512 on, not below).
bool has_bf16();
/// Whether its bf16 kernels multiply tiles of matrices (AMX).
bool has_amx();

/// oneDNN's view of a tensor's storage.
inline dnnl::memory view(const dnnl::memory::desc& desc, const Tensor& t) {
  return dnnl::memory(desc, engine(), t.raw());
}
/// Working memory of one execution, from our allocator.
Tensor scratchpad(const dnnl::memory::desc& desc);

/// Copies between layouts and types; the primitive is cached.
void reorder(const dnnl::memory::desc& from, const void* source, const dnnl::memory::desc& to,
             void* target);

/// `weight` (described by `plain`) in the layout and type of `packed`: made once per version
/// of the weight, and handed over without a copy when the layouts agree.
/// @param other_order makes what `plain` describes instead of the weight, in an order that no
///                    strides express: not kept once it is packed
Tensor pack_weight(const Tensor& weight, const dnnl::memory::desc& plain,
                   const dnnl::memory::desc& packed,
                   const std::function<Tensor()>& other_order = {});

/// Primitives by shape: `make` runs once per key and thread count.
template <typename Value>
class PrimitiveCache {
 public:
  template <typename Make>
  std::shared_ptr<Value> get(std::vector<int64_t> key, Make&& make) {
    key.push_back(thread_count());
    // Multi-scale training meets many shapes; starting over now and then keeps memory bounded.
    if (entries_.size() >= kMostEntries) entries_.clear();
    std::shared_ptr<Value>& slot = entries_[std::move(key)];
    if (!slot) slot = std::make_shared<Value>(make());
    return slot;
  }

 private:
  static constexpr size_t kMostEntries = 4096;
  static int64_t thread_count();
  std::map<std::vector<int64_t>, std::shared_ptr<Value>> entries_;
};
int64_t current_threads();
template <typename Value>
int64_t PrimitiveCache<Value>::thread_count() {
  return current_threads();
}

}  // namespace mixpl::onednn
