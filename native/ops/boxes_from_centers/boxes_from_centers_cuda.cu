#include "core/cuda/packs.h"
#include "ops/boxes_from_centers/boxes_from_centers.h"
#include "ops/boxes_from_centers/boxes_from_centers_math.h"

namespace mixpl::cuda {
namespace {

// A thread a box: corners, or (backward) the gradient of a box from that of its corners.
template <bool kForward>
struct CentersView {
  const float* __restrict__ from;
  const ImageSize* __restrict__ sizes;
  float* __restrict__ to;
  Divider queries;

  MIXPL_DEVICE void operator()(int64_t i) const {
    const auto v = load_vec<float, 4>(from + 4 * i);
    const ImageSize size = sizes[queries.quotient(static_cast<uint32_t>(i))];
    if constexpr (kForward) {
      const Box b = box_from_center({v[0], v[1], v[2], v[3]}, size);
      store_vec(to + 4 * i, Vec<float, 4>{b.x1, b.y1, b.x2, b.y2});
    } else {
      const CenterBox b = center_gradient({v[0], v[1], v[2], v[3]}, size);
      store_vec(to + 4 * i, Vec<float, 4>{b.cx, b.cy, b.w, b.h});
    }
  }
};

template <bool kForward>
void convert(const Tensor& from, const Tensor& sizes, const Tensor& to) {
  const int64_t boxes = index_of(to.numel() / 4);  // in 32 bits
  for_each(boxes, CentersView<kForward>{from.data<float>(), sizes_in(sizes), to.data<float>(),
                                        Divider(to.size(1))});
}

}  // namespace

void boxes_from_centers_forward(const Tensor& boxes, const Tensor& sizes, Tensor& corners) {
  convert<true>(boxes, sizes, corners);
}

void boxes_from_centers_backward(const Tensor& dcorners, const Tensor& sizes, Tensor& dboxes) {
  convert<false>(dcorners, sizes, dboxes);
}

}  // namespace mixpl::cuda
