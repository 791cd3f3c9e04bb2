#include "ops/layer_weighted_conv/layer_weighted_conv.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/conv2d/conv2d.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

// Image n of [N, H, W, C] as [1, H, W, C], sharing the storage.
Tensor image_of(const Tensor& t, int64_t n) {
  auto impl = std::make_shared<TensorImpl>();
  const int64_t bytes = t.nbytes() / t.size(0);
  impl->storage = std::shared_ptr<void>(t.impl()->storage, static_cast<char*>(t.raw()) + n * bytes);
  impl->shape = {1, t.size(1), t.size(2), t.size(3)};
  impl->dtype = t.dtype();
  impl->device = t.device();
  return Tensor(std::move(impl));
}

}  // namespace

Tensor layer_weighted_conv(const Tensor& x, const Tensor& weight, const Tensor& attention) {
  const Check check("layerWeightedConv");
  check.floating("x", x);
  check.rank("x", x, 4, "N, H, W, S C");
  check.dtype("weight", weight, DType::f32);
  check.rank("weight", weight, 4, "K, 1, 1, S C");
  check.shape("weight", weight, {weight.size(0), 1, 1, x.size(3)},
              "1x1 filters over the channels of x");
  check.dtype("attention", attention, x.dtype());
  const int64_t images = x.size(0);
  const int64_t layers = attention.rank() ? attention.size(-1) : 0;
  if (attention.numel() != images * layers || layers < 1 || x.size(3) % layers != 0)
    throw ShapeError(str("layerWeightedConv: attention must be [", images,
                         ", ..., S] with one number per image and layer, S a divisor of ",
                         x.size(3), " (the channels of x), got ", attention.shape()));
  check.same_device("weight", weight, x);
  check.same_device("attention", attention, x);

  Tensor y = Tensor::empty({images, x.size(1), x.size(2), weight.size(0)}, x.dtype(), x.device());
  for (int64_t n = 0; n < images; ++n) {
    Tensor scaled = Tensor::empty_like(weight), out = image_of(y, n);
    MIXPL_DISPATCH(x.device(), weigh_layers, weight, attention, n, scaled);
    MIXPL_DISPATCH(x.device(), conv2d_forward, image_of(x, n), scaled, Tensor(), Tensor(), {}, out);
  }
  record(y, {x, weight, attention}, [=](const Tensor& dy) {
    Gradients grads(3);
    if (x.requires_grad()) grads[0] = Tensor::empty_like(x);
    if (weight.requires_grad()) grads[1] = Tensor::zeros(weight.shape(), DType::f32, x.device());
    if (attention.requires_grad()) grads[2] = Tensor::empty_like(attention);
    for (int64_t n = 0; n < images; ++n) {
      const Tensor d = image_of(dy, n);
      Tensor filters = Tensor::empty_like(weight);
      if (grads[0].defined()) {
        Tensor dx = image_of(grads[0], n);
        MIXPL_DISPATCH(x.device(), weigh_layers, weight, attention, n, filters);
        MIXPL_DISPATCH(x.device(), conv2d_backward_data, d, filters, {}, dx);
      }
      if (!grads[1].defined() && !grads[2].defined()) continue;
      Tensor dscaled = Tensor::empty_like(weight);
      MIXPL_DISPATCH(x.device(), conv2d_backward_weight, image_of(x, n), d, {}, dscaled);
      MIXPL_DISPATCH(x.device(), weigh_layers_backward, dscaled, weight, attention, n, grads[1],
                     grads[2]);
    }
    return grads;
  });
  if (is_traced()) note("layerWeightedConv", {x, weight, attention}, {y});
  return y;
}

namespace {
// Inputs: x, weight, attention.
const bool registered =
    register_op("layerWeightedConv", [](const std::vector<Tensor>& in, const Options&) {
      if (in.size() != 3)
        throw ShapeError(str("layerWeightedConv: needs 3 tensors, got ", in.size()));
      return std::vector<Tensor>{layer_weighted_conv(in[0], in[1], in[2])};
    });
}  // namespace

}  // namespace mixpl
