#include "core/cuda/kernel.h"

#if !defined(MIXPL_CUDA_EMULATED)

#include "core/cuda/bulk_copies.h"
#include "core/cuda/error.h"
#include "core/error.h"

namespace mixpl::cuda {
namespace {

// The driver's functions by name: the addon must load where there is no driver.
template <typename F>
F* driver_function(const char* name) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  MIXPL_CUDA(cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &found));
  if (found != cudaDriverEntryPointSuccess || !function)
    throw DeviceError(str("cuda: the driver has no ", name));
  return reinterpret_cast<F*>(function);
}
void check(CUresult result, const char* what) {
  if (result != CUDA_SUCCESS)
    throw DeviceError(str("cuda: ", what, " failed with error ", int{result}));
}

}  // namespace

TensorMap box_map(const void* data, const BoxAxis (&axes)[3]) {
  static auto* const encode =
      driver_function<decltype(cuTensorMapEncodeTiled)>("cuTensorMapEncodeTiled");
  TensorMap map;
  const cuuint64_t sizes[] = {axes[0].size, axes[1].size, axes[2].size};
  const cuuint64_t pitches[] = {axes[1].pitch, axes[2].pitch};
  const cuuint32_t box[] = {axes[0].box, axes[1].box, axes[2].box}, every[] = {1, 1, 1};
  check(encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<void*>(data), sizes, pitches,
               box, every, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
        "cuTensorMapEncodeTiled");
  return map;
}

TensorMap pixel_map(const void* data, int images, const PixelAxis& down, const PixelAxis& right,
                    int channels, int pitch, int pixels) {
  static auto* const encode =
      driver_function<decltype(cuTensorMapEncodeIm2col)>("cuTensorMapEncodeIm2col");
  TensorMap map;
  const auto size = [](int n) { return static_cast<cuuint64_t>(n); };
  const cuuint64_t sizes[] = {size(channels), size(right.size), size(down.size), size(images)};
  const cuuint64_t pixel = 2 * size(pitch);
  const cuuint64_t pitches[] = {pixel, pixel * size(right.size),
                                pixel * size(right.size) * size(down.size)};
  const int first[] = {right.lower, down.lower}, last[] = {right.upper, down.upper};
  const cuuint32_t every[] = {1, static_cast<cuuint32_t>(right.stride),
                              static_cast<cuuint32_t>(down.stride), 1};
  check(encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<void*>(data), sizes, pitches,
               first, last, 64, static_cast<cuuint32_t>(pixels), every,
               CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
        "cuTensorMapEncodeIm2col");
  return map;
}

}  // namespace mixpl::cuda

#endif
