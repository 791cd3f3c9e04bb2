#include "ops/deform_sampling/deform_sampling.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {

Tensor deform_sampling(const Tensor& values, const Tensor& offsets) {
  const Check check("deformSampling");
  check.dtype("values", values, DType::f32);
  check.rank("values", values, 4, "N, H, W, C");
  check.floating("offsets", offsets);
  check.shape("offsets", offsets,
              {values.size(0), values.size(1), values.size(2), 2 * values.size(3)},
              "dy and dx for every value");
  check.same_device("offsets", offsets, values);
  Tensor out = Tensor::empty_like(values);
  MIXPL_DISPATCH(values.device(), deform_sampling_forward, values, offsets, out);
  record(out, {values, offsets}, [=](const Tensor& dout) {
    Gradients grads(2);
    if (values.requires_grad())
      grads[0] = Tensor::zeros(values.shape(), DType::f32, values.device());
    if (offsets.requires_grad()) grads[1] = Tensor::empty_like(offsets);
    MIXPL_DISPATCH(values.device(), deform_sampling_backward, dout, values, offsets, grads[0],
                   grads[1]);
    return grads;
  });
  if (is_traced()) note("deformSampling", {values, offsets}, {out});
  return out;
}

namespace {
const bool registered =
    register_op("deformSampling", [](const std::vector<Tensor>& in, const Options&) {
      if (in.size() != 2) throw ShapeError(str("deformSampling: needs 2 tensors, got ", in.size()));
      return std::vector<Tensor>{deform_sampling(in[0], in[1])};
    });
}  // namespace

}  // namespace mixpl
