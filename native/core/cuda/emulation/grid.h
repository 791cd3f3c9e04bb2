// Runs a kernel on the host as a GPU would, one block after another: a block's threads are fibers
// that meet at barriers, its warps exchange operands when all their lanes have arrived. What a GPU
// leaves undefined is an error here, with kernel, block and thread in the message.
#pragma once

#include <cstdint>
#include <source_location>
#include <string>
#include <type_traits>
#include <vector>

#include "core/cuda/emulation/vectors.h"

namespace mixpl::cuda {

// Of the thread that runs now, as CUDA names them.
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

constexpr int kWarpSize = 32;
constexpr int kMostThreads = 1024;
constexpr int64_t kMostSharedBytes = 227 << 10;       // of a block, on the largest GPUs
constexpr int64_t kMostStaticSharedBytes = 48 << 10;  // nvcc's limit
constexpr int kMultiprocessors = 4;  // few, so that grid-stride loops take several turns

/// How kernels run until it is changed: the results of a correct one do not depend on it.
struct Settings {
  uint64_t order_seed = 0;  // 0: blocks and threads in order; else their order is drawn from it
  uint8_t poison = 0xff;    // fills memory that nobody has written: 0xff is NaN as f32 and bf16
};
/// Initially from MIXPL_EMULATION_SEED and MIXPL_EMULATION_POISON, where set.
Settings& settings();

/// A reference to any callable.
class Body {
 public:
  template <typename F, typename = std::enable_if_t<!std::is_same_v<F, Body>>>
  explicit Body(F& f) : object_(&f), call_([](void* object) { (*static_cast<F*>(object))(); }) {}
  void operator()() const { call_(object_); }

 private:
  void* object_;
  void (*call_)(void*);
};

/// Calls `body` once per thread. @throws DeviceError naming `where`, block and thread
void run_grid(const std::source_location& where, dim3 grid, dim3 block, size_t dynamic_shared,
              Body body);
/// True on a fiber of a kernel.
bool in_kernel();
/// What a mistake in a kernel ends in. @throws DeviceError
[[noreturn]] void fail(const std::string& message);

/// Of the running thread within its block; lane and warp follow from it.
int linear_thread();
int threads_of_block();

/// Waits for all threads of the block. Every thread must come to the same barrier.
void wait_for_block(const std::source_location& where);

/// What each lane hands over and gets back at a meeting of its warp.
struct LaneData {
  alignas(16) unsigned char bytes[64];
};
/// The lanes that met, `lanes[i]` valid where bit i of `present` is set.
struct Meeting {
  LaneData* lanes;
  uint32_t present;
  bool has(int lane) const { return present >> lane & 1; }
};
/// Waits for the live lanes of `mask` in this warp, all of them at the same operation; the last to
/// arrive runs `exchange` for all.
void meet(const char* operation, uint32_t mask, const std::source_location& where, LaneData& data,
          void (*exchange)(Meeting&));

/// Memory of the block: the same address for all its threads that ask with the same key, filled
/// with poison, guarded on both sides.
void* shared_memory(const void* key, const char* name, size_t bytes, size_t alignment);
void* dynamic_shared_memory();
bool in_shared_memory(const void* p, size_t bytes);

/// Copies that this thread has started; they take place when it waits for them.
void start_copy(void* to, const void* from, int bytes, int valid_bytes);
void commit_copies();
void wait_for_copies(int groups_left);
/// Copies that have taken place are not yet seen by wgmma; after this they are.
void fence_copies();

/// A wgmma that this thread has issued: it takes place when the thread waits for it, and until then
/// its sums are poison.
struct WarpgroupProduct {
  float* sums;
  int count;                // of sums: half as many as columns
  uint64_t a, b;            // descriptors
  bool a_result, b_result;  // rows run along the result
  bool add;                 // to the sums, or in their place
  int group = 0;
  bool first = true;              // of those that wait for the same sums
  std::vector<float> start = {};  // of the first
};
void start_product(const WarpgroupProduct& product);
void commit_products();
void wait_for_products(int groups_left, const std::source_location& where);
/// A warp's products (warpgroups.cpp), in the order of issue.
void run_products(const std::vector<WarpgroupProduct>& due, const std::source_location& where);

}  // namespace emulation
}  // namespace mixpl::cuda
