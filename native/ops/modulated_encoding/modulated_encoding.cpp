#include "ops/modulated_encoding/modulated_encoding.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {

Tensor modulated_encoding(const Tensor& encoding, const Tensor& sizes, const Tensor& boxes,
                          const Tensor& scale) {
  const Check check("modulatedEncoding");
  check.floating("encoding", encoding);
  check.rank("encoding", encoding, 3, "N, Q, 2 C");
  if (encoding.size(2) % 4)
    throw ShapeError(str("modulatedEncoding: encoding must have a multiple of 4 channels, got ",
                         encoding.shape()));
  const int64_t images = encoding.size(0), queries = encoding.size(1),
                channels = encoding.size(2) / 2;
  check.dtype("sizes", sizes, encoding.dtype());
  check.shape("sizes", sizes, {images, queries, 2}, "width and height of each query");
  check.same_device("sizes", sizes, encoding);
  check.dtype("boxes", boxes, DType::f32);
  check.shape("boxes", boxes, {images, queries, 4}, "a box of each query");
  check.same_device("boxes", boxes, encoding);
  if (scale.defined()) {
    check.dtype("scale", scale, encoding.dtype());
    check.shape("scale", scale, {images, queries, channels}, "half the channels of encoding");
    check.same_device("scale", scale, encoding);
  }
  Tensor y = Tensor::empty({images, queries, channels}, encoding.dtype(), encoding.device());
  MIXPL_DISPATCH(y.device(), modulated_encoding_forward, encoding, sizes, boxes, scale, y);
  record(y, {encoding, sizes, boxes, scale}, [=](const Tensor& dy) {
    const auto wanted = [](const Tensor& x) {
      return x.defined() && x.requires_grad() ? Tensor::empty_like(x) : Tensor();
    };
    ModulatedEncodingGradients g{wanted(encoding), wanted(sizes), wanted(boxes), wanted(scale)};
    MIXPL_DISPATCH(dy.device(), modulated_encoding_backward, dy, encoding, sizes, boxes, scale, g);
    return Gradients{g.dencoding, g.dsizes, g.dboxes, g.dscale};
  });
  if (is_traced()) note("modulatedEncoding", {encoding, sizes, boxes, scale}, {y});
  return y;
}

namespace {
// encoding, sizes, boxes and, if there is one, scale.
const bool registered =
    register_op("modulatedEncoding", [](const std::vector<Tensor>& in, const Options&) {
      if (in.size() != 3 && in.size() != 4)
        throw ShapeError(str("modulatedEncoding: needs 3 or 4 tensors, got ", in.size()));
      return std::vector<Tensor>{
          modulated_encoding(in[0], in[1], in[2], in.size() == 4 ? in[3] : Tensor())};
    });
}  // namespace

}  // namespace mixpl
