#include "ops/upsample_add/upsample_add.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {

Tensor upsample_add(const Tensor& lateral, const Tensor& top) {
  const Check check("upsampleAdd");
  check.floating("lateral", lateral);
  check.rank("lateral", lateral, 4, "N, H, W, C");
  check.dtype("top", top, lateral.dtype());
  check.rank("top", top, 4, "N, H', W', C");
  check.size("top", top, 0, lateral.size(0), "images of lateral");
  check.size("top", top, 3, lateral.size(3), "channels of lateral");
  if (lateral.numel() > 0 && top.numel() == 0)
    throw ShapeError(str("upsampleAdd: top must not be empty, got ", top.shape()));
  Tensor y = Tensor::empty_like(lateral);
  MIXPL_DISPATCH(lateral.device(), upsample_add_forward, lateral, top, y);
  record(y, {lateral, top}, [=](const Tensor& dy) {
    Gradients grads{dy, {}};
    if (top.requires_grad()) {
      grads[1] = Tensor::empty_like(top);
      MIXPL_DISPATCH(dy.device(), upsample_add_backward, dy, grads[1]);
    }
    return grads;
  });
  if (is_traced()) note("upsampleAdd", {lateral, top}, {y});
  return y;
}

namespace {
const bool registered =
    register_op("upsampleAdd", [](const std::vector<Tensor>& in, const Options&) {
      if (in.size() != 2) throw ShapeError(str("upsampleAdd: needs 2 tensors, got ", in.size()));
      return std::vector<Tensor>{upsample_add(in[0], in[1])};
    });
}  // namespace

}  // namespace mixpl
