#include "ops/concat_channels/concat_channels.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {

Tensor concat_channels(const std::vector<Tensor>& parts) {
  const Check check("concatChannels");
  if (parts.empty()) throw ShapeError("concatChannels: needs 1 tensor or more, got 0");
  const Tensor& model = parts[0];
  check.floating("parts", model);
  if (model.rank() < 1) throw ShapeError("concatChannels: parts must have an axis, got a scalar");
  std::vector<int64_t> sizes = model.shape().sizes();
  sizes.back() = 0;
  for (const Tensor& part : parts) {
    check.dtype("parts", part, model.dtype());
    if (part.rank() != model.rank() || drop_last(part.shape()) != drop_last(model.shape()))
      throw ShapeError(str("concatChannels: parts must be equal but for the last axis, got ",
                           model.shape(), " and ", part.shape()));
    check.same_device("parts", part, model);
    sizes.back() += part.size(-1);
  }
  Tensor whole = Tensor::empty(Shape(sizes), model.dtype(), model.device());
  int64_t first = 0;
  for (const Tensor& part : parts) {
    MIXPL_DISPATCH(part.device(), put_channels, part, first, whole);
    first += part.size(-1);
  }
  record(whole, parts, [parts](const Tensor& dwhole) {
    Gradients grads(parts.size());
    int64_t at = 0;
    for (size_t i = 0; i < parts.size(); at += parts[i++].size(-1)) {
      if (!parts[i].requires_grad()) continue;
      grads[i] = Tensor::empty_like(parts[i]);
      MIXPL_DISPATCH(dwhole.device(), take_channels, dwhole, at, grads[i]);
    }
    return grads;
  });
  if (is_traced()) note("concatChannels", parts, {whole});
  return whole;
}

namespace {
const bool registered =
    register_op("concatChannels", [](const std::vector<Tensor>& in, const Options&) {
      return std::vector<Tensor>{concat_channels(in)};
    });
}  // namespace

}  // namespace mixpl
