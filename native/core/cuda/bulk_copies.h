// Copies of whole tiles by the hardware (TMA, sm_90a), and what they need: barriers that count
// bytes, and blocks in pairs (clusters) that a copy serves at once. Not emulated: kernels that use
// it have another one that computes the same.
#pragma once

#include <cuda.h>

#include "core/cuda/kernel.h"

namespace mixpl::cuda {

/// How a tensor lies, for the copying hardware; in a kernel's parameters (`__grid_constant__`).
using TensorMap = CUtensorMap;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)
#define MIXPL_BULK(...) asm volatile(__VA_ARGS__)
#define MIXPL_CLUSTER(blocks) __cluster_dims__(blocks, 1, 1)
#else  // compiled for every architecture, and launched on this one
#define MIXPL_BULK(...) __trap()
#define MIXPL_CLUSTER(blocks)
#endif

/// All warps of a group of four give registers back, down to so many a thread, or wait for them.
template <int kRegisters>
MIXPL_DEVICE void give_registers() {
  MIXPL_BULK("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}
template <int kRegisters>
MIXPL_DEVICE void take_registers() {
  MIXPL_BULK("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}

/// Which block of its pair this one is.
MIXPL_DEVICE uint32_t cluster_rank() {
  uint32_t rank = 0;
  MIXPL_BULK("mov.u32 %0, %%cluster_ctarank;\n" : "=r"(rank));
  return rank;
}
/// All threads of all blocks of the cluster.
MIXPL_DEVICE void sync_cluster() {
  MIXPL_BULK(
      "barrier.cluster.arrive.release;\n"
      "barrier.cluster.wait.acquire;\n" ::
          : "memory");
}

/// A barrier in shared memory. It passes from one phase to the next when `arrivals` threads have
/// arrived and all expected bytes are there; phases are told by their parity.
struct BulkBarrier {
  uint64_t state;

  MIXPL_DEVICE void init(uint32_t arrivals) {
    MIXPL_BULK("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(this)),
               "r"(arrivals)
               : "memory");
  }
  /// Arrives, and announces bytes of this phase.
  MIXPL_DEVICE void arrive_and_expect(uint32_t bytes) {
    MIXPL_BULK(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(this)),
        "r"(bytes)
        : "memory");
  }
  /// Arrives at the same barrier of block `rank` of the cluster. Orders nothing among blocks: a
  /// release in their scope is a fence of memory, which costs more than a step of a product.
  MIXPL_DEVICE void arrive_at(uint32_t rank) {
    MIXPL_BULK(
        "{.reg .b32 remote;\n"
        "mapa.shared::cluster.u32 remote, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [remote];}\n" ::"r"(shared_address(this)),
        "r"(rank)
        : "memory");
  }
  /// Until the phase of this parity is over.
  MIXPL_DEVICE void wait(uint32_t parity) {
    MIXPL_BULK(
        "{.reg .pred over;\n"
        "AGAIN:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
        "@over bra OVER;\n"
        "bra AGAIN;\n"
        "OVER:}\n" ::"r"(shared_address(this)),
        "r"(parity)
        : "memory");
  }
};
/// After init(), before anyone else looks at the barriers; a sync_cluster() must follow.
MIXPL_DEVICE void publish_barriers() {
  MIXPL_BULK("fence.mbarrier_init.release.cluster;\n" ::: "memory");
}

/// The box of a map of three axes that begins at `at` (innermost first), to `to` in this block, or
/// in every block of the cluster that `blocks` has a bit for. What lies outside is zero. Its bytes
/// are counted by `barrier` of every block that gets them.
MIXPL_DEVICE void copy_box(void* to, const TensorMap* map, BulkBarrier* barrier,
                           const int (&at)[3]) {
  MIXPL_BULK(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4}], [%5];\n" ::"r"(shared_address(to)),
      "l"(map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(shared_address(barrier))
      : "memory");
}
MIXPL_DEVICE void copy_box(void* to, const TensorMap* map, BulkBarrier* barrier, const int (&at)[3],
                           uint16_t blocks) {
  MIXPL_BULK(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %3, %4}], [%5], %6;\n" ::"r"(shared_address(to)),
      "l"(map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(shared_address(barrier)), "h"(blocks)
      : "memory");
}
/// Pixels of an image map, one row each, from `at` (channel, x, y, image) on, `tap` (x, y) further.
MIXPL_DEVICE void copy_pixels(void* to, const TensorMap* map, BulkBarrier* barrier,
                              const int (&at)[4], const int (&tap)[2]) {
  MIXPL_BULK(
      "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4, %5}], [%6], {%7, %8};\n" ::"r"(shared_address(to)),
      "l"(map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(shared_address(barrier)),
      "h"(static_cast<uint16_t>(tap[0])), "h"(static_cast<uint16_t>(tap[1]))
      : "memory");
}
MIXPL_DEVICE void copy_pixels(void* to, const TensorMap* map, BulkBarrier* barrier,
                              const int (&at)[4], const int (&tap)[2], uint16_t blocks) {
  MIXPL_BULK(
      "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %3, %4, %5}], [%6], {%7, %8}, %9;\n" ::"r"(
          shared_address(to)),
      "l"(map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(shared_address(barrier)),
      "h"(static_cast<uint16_t>(tap[0])), "h"(static_cast<uint16_t>(tap[1])), "h"(blocks)
      : "memory");
}

/// Axes of a box, innermost first: elements there are, bytes from one to the next (none for the
/// innermost, where elements are adjacent), elements of a box.
struct BoxAxis {
  uint64_t size, pitch;
  uint32_t box;
};
/// A bf16 tensor in boxes whose rows are 128 bytes, swizzled as wgmma reads them.
/// @throws DeviceError when the driver refuses
TensorMap box_map(const void* data, const BoxAxis (&axes)[3]);

/// What an image map gathers along x or y of a tensor of `size`: positions `stride` (at most 8)
/// apart; the first one begins at `lower`, the last one `upper` beyond the last element, both from
/// -128 to 127.
struct PixelAxis {
  int size, stride, lower, upper;
};
/// A bf16 tensor [images, height, width, channels], `pitch` elements between pixels; a copy takes
/// 64 channels of `pixels` pixels. @throws DeviceError when the driver refuses
TensorMap pixel_map(const void* data, int images, const PixelAxis& down, const PixelAxis& right,
                    int channels, int pitch, int pixels);

}  // namespace mixpl::cuda
