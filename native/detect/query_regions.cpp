#include "detect/query_regions.h"

#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {

Regions query_regions(const Tensor& boxes, const Tensor& sizes) {
  const Check check("queryRegions");
  check.dtype("boxes", boxes, DType::f32);
  check.rank("boxes", boxes, 3, "N, Q, 4");
  check.size("boxes", boxes, 2, 4, "cx, cy, w, h");
  check.dtype("sizes", sizes, DType::f32);
  check.shape("sizes", sizes, {boxes.size(0), 2}, "height and width of each image");
  check.same_device("sizes", sizes, boxes);
  const int64_t images = boxes.size(0), queries = boxes.size(1);
  const Device device = boxes.device();
  const Regions regions{Tensor::empty({images * queries, 4}, DType::f32, device),
                        Tensor::empty({images * queries}, DType::i32, device),
                        Tensor::full({images}, static_cast<float>(queries), DType::i32, device)};
  MIXPL_DISPATCH(device, query_regions, boxes, sizes, regions);
  if (is_traced()) note("queryRegions", {boxes}, {regions.boxes});
  return regions;
}

namespace {
// boxes, sizes; outputs: boxes and images of the regions, how many an image has.
const bool registered =
    register_op("queryRegions", [](const std::vector<Tensor>& in, const Options&) {
      if (in.size() != 2) throw ShapeError(str("queryRegions: needs 2 tensors, got ", in.size()));
      const Regions r = query_regions(in[0], in[1]);
      return std::vector<Tensor>{r.boxes, r.image, r.counts};
    });
}  // namespace

}  // namespace mixpl
