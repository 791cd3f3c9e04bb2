// Products of whole warpgroups (wgmma, sm_90a): four warps multiply tiles that lie in shared
// memory. Asynchronous like cp_async: between issuing and wgmma_wait the sums belong to the
// hardware. Emulated in emulation/warpgroups.h.
#pragma once

namespace mixpl::cuda {

/// Bytes of a row of an operand in shared memory, and of eight such rows, a piece. Chunk c of 16
/// bytes of row r lies in place c ^ r % 8; pieces are aligned to their size.
constexpr int kSwizzleBytes = 128, kSwizzlePiece = 8 * kSwizzleBytes;

/// How an operand lies: 64-bit matrix descriptor with 128-byte swizzle.
/// @param tile   in shared memory, where the product's first row and step begin
/// @param pitch  bytes between pieces of 64 elements along the result; only for operands whose rows
///               run along the result
/// @source PTX ISA, "Matrix descriptor format" and "Canonical layouts" of wgmma
MIXPL_DEVICE uint64_t wgmma_descriptor(const void* tile, int pitch = 16) {
  const auto field = [](uint32_t bytes) { return static_cast<uint64_t>((bytes & 0x3ffff) >> 4); };
  return field(shared_address(tile)) | field(static_cast<uint32_t>(pitch)) << 16 |
         field(kSwizzlePiece) << 32 | uint64_t{1} << 62;
}

}  // namespace mixpl::cuda

#if defined(MIXPL_CUDA_EMULATED)
#include "core/cuda/emulation/warpgroups.h"
#else

namespace mixpl::cuda {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)
#define MIXPL_WGMMA(...) asm volatile(__VA_ARGS__)
#else  // kernels with warpgroups are compiled for every architecture, and launched on this one
#define MIXPL_WGMMA(...) __trap()
#endif

/// Makes this thread's writes to shared memory, cp_async's among them, visible to wgmma after a
/// barrier.
MIXPL_DEVICE void fence_async_proxy() {
  MIXPL_WGMMA("fence.proxy.async.shared::cta;\n" ::: "memory");
}
/// Before the first product: orders the sums' registers.
MIXPL_DEVICE void wgmma_begin() { MIXPL_WGMMA("wgmma.fence.sync.aligned;\n" ::: "memory"); }
/// Closes the group of the products since the last call.
MIXPL_DEVICE void wgmma_commit() { MIXPL_WGMMA("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
/// Waits for the groups except the last N.
template <int N>
MIXPL_DEVICE void wgmma_wait() {
  MIXPL_WGMMA("wgmma.wait_group.sync.aligned %0;\n" ::"n"(N) : "memory");
}

/// After the last wait: the compiler may not read the sums earlier.
template <int kSums>
MIXPL_DEVICE void wgmma_end(float (&d)[kSums]) {
#pragma unroll
  for (float& sum : d) asm volatile("" : "+f"(sum)::"memory");
}

/// d = a b, or d += a b, for 64 rows, 128 or 256 columns and 16 terms of bf16. Warp w of the four
/// holds rows 16 w …, d[4 j + i] is row lane / 4 + 8 (i / 2), column 8 j + 2 (lane % 4) + i % 2. kA
/// (kB): the rows of a's (b's) tile run along the result, not along the reduction.
template <bool kA, bool kB>
MIXPL_DEVICE void wgmma_bf16(float (&d)[64], uint64_t a, uint64_t b, bool add) {
  MIXPL_WGMMA(
      "{.reg .pred add;\n"
      "setp.ne.b32 add, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "%64, %65, add, 1, 1, %67, %68;}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
        "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
        "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
        "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]),
        "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
        "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),
        "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
        "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]),
        "+f"(d[63])
      : "l"(a), "l"(b), "r"(int{add}), "n"(int{kA}), "n"(int{kB}));
}
template <bool kA, bool kB>
MIXPL_DEVICE void wgmma_bf16(float (&d)[128], uint64_t a, uint64_t b, bool add) {
  MIXPL_WGMMA(
      "{.reg .pred add;\n"
      "setp.ne.b32 add, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      " %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      " %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
      " %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, "
      "%111, "
      " %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, "
      "%127}, "
      "%128, %129, add, 1, 1, %131, %132;}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
        "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
        "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
        "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]),
        "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
        "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),
        "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
        "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]),
        "+f"(d[63]), "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]),
        "+f"(d[70]), "+f"(d[71]), "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]),
        "+f"(d[77]), "+f"(d[78]), "+f"(d[79]), "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]),
        "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87]), "+f"(d[88]), "+f"(d[89]), "+f"(d[90]),
        "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95]), "+f"(d[96]), "+f"(d[97]),
        "+f"(d[98]), "+f"(d[99]), "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), "+f"(d[103]),
        "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107]), "+f"(d[108]), "+f"(d[109]),
        "+f"(d[110]), "+f"(d[111]), "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115]),
        "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119]), "+f"(d[120]), "+f"(d[121]),
        "+f"(d[122]), "+f"(d[123]), "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])
      : "l"(a), "l"(b), "r"(int{add}), "n"(int{kA}), "n"(int{kB}));
}

}  // namespace mixpl::cuda

#endif
