#include "core/cuda/kernel.h"
#include "detect/regions_math.h"

namespace mixpl::cuda {

void places_of(const Regions& regions, const RegionLevels& levels, Tensor& places) {
  for_each(regions.size(), PlacesView{boxes_in(regions.boxes), regions.image.data<int32_t>(),
                                      levels, places.data<int32_t>()});
}

namespace {

constexpr int kThreads = 256;

struct RefineView {
  RegionDecoderView decode;
  const Box* boxes;
  const int32_t* counts;
  int64_t places;           // of an image
  const uint8_t* left_out;  // null: none
  const ImageSize* sizes;
  Box* next;
  int32_t *next_image, *next_counts;
};

// One block an image: what is left moves together, in order.
MIXPL_KERNEL __launch_bounds__(kThreads) refine_kernel(RefineView v) {
  const int64_t n = blockIdx.x, first = n * v.places, count = v.counts[n];
  int32_t kept = 0;
  for (int64_t base = 0; base < count; base += kThreads) {
    const int64_t i = first + base + threadIdx.x;
    const bool stays = base + threadIdx.x < count && !(v.left_out && v.left_out[i]);
    int32_t total;
    const int64_t to = first + kept + block_scan_exclusive(static_cast<int32_t>(stays), &total);
    if (stays) {
      v.next[to] = refined_box(v.decode, i, v.boxes[i], v.sizes[n]);
      v.next_image[to] = static_cast<int32_t>(n);
    }
    kept += total;
  }
  for (int64_t k = kept + threadIdx.x; k < v.places; k += kThreads) {
    v.next[first + k] = {0, 0, 0, 0};
    v.next_image[first + k] = -1;
  }
  if (threadIdx.x == 0) v.next_counts[n] = kept;
}

}  // namespace

Regions refine_regions(const Regions& regions, const RegionDecoder& decoder, const Tensor& sizes,
                       const Tensor& left_out) {
  Regions next{Tensor::empty_like(regions.boxes), Tensor::empty_like(regions.image),
               Tensor::empty_like(regions.counts)};
  launch(refine_kernel, dim3(static_cast<unsigned>(regions.images())), dim3(kThreads), 0,
         RefineView{RegionDecoderView(decoder), boxes_in(regions.boxes),
                    regions.counts.data<int32_t>(), regions.places(),
                    left_out.defined() ? left_out.data<uint8_t>() : nullptr, sizes_in(sizes),
                    mutable_boxes_in(next.boxes), next.image.data<int32_t>(),
                    next.counts.data<int32_t>()});
  return next;
}

}  // namespace mixpl::cuda
