#include "core/parallel.h"
#include "ops/boxes_from_centers/boxes_from_centers.h"
#include "ops/boxes_from_centers/boxes_from_centers_math.h"

namespace mixpl::cpu {

void boxes_from_centers_forward(const Tensor& boxes, const Tensor& sizes, Tensor& corners) {
  const CenterBox* from = reinterpret_cast<const CenterBox*>(boxes.data<float>());
  Box* to = reinterpret_cast<Box*>(corners.data<float>());
  const ImageSize* size = sizes_in(sizes);
  const int64_t queries = boxes.size(1);
  parallel_for(boxes.numel() / 4,
               [=](int64_t i) { to[i] = box_from_center(from[i], size[i / queries]); });
}

void boxes_from_centers_backward(const Tensor& dcorners, const Tensor& sizes, Tensor& dboxes) {
  const Box* from = reinterpret_cast<const Box*>(dcorners.data<float>());
  CenterBox* to = reinterpret_cast<CenterBox*>(dboxes.data<float>());
  const ImageSize* size = sizes_in(sizes);
  const int64_t queries = dboxes.size(1);
  parallel_for(dboxes.numel() / 4,
               [=](int64_t i) { to[i] = center_gradient(from[i], size[i / queries]); });
}

}  // namespace mixpl::cpu
