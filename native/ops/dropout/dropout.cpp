#include "ops/dropout/dropout.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

Tensor drop(const Check& check, const Tensor& x, float p, const Philox& random, int64_t run) {
  if (!(p >= 0 && p < 1)) throw RangeError(str(check.op(), ": p must be in [0, 1), got ", p));
  if (p == 0) return x;
  Tensor y = Tensor::empty_like(x);
  if (x.numel()) MIXPL_DISPATCH(x.device(), dropout_apply, x, p, random, run, y);
  record(y, {x}, [=](const Tensor& dy) {
    Tensor dx = dy.unique() ? dy : Tensor::empty_like(dy);
    if (dy.numel()) MIXPL_DISPATCH(dy.device(), dropout_apply, dy, p, random, run, dx);
    return Gradients{dx};
  });
  return y;
}

}  // namespace

Tensor dropout(const Tensor& x, float p, const Philox& random) {
  const Check check("dropout");
  check.floating("x", x);
  return drop(check, x, p, random, 1);
}

Tensor drop_path(const Tensor& x, float p, const Philox& random) {
  const Check check("dropPath");
  check.floating("x", x);
  if (x.rank() < 1)
    throw ShapeError(str("dropPath: x must have at least one axis, got ", x.shape()));
  return drop(check, x, p, random, x.size(0) ? x.numel() / x.size(0) : 1);
}

namespace {

// Options: p, seed, stream.
NamedOp named(const char* name, Tensor (*op)(const Tensor&, float, const Philox&)) {
  return [=](const std::vector<Tensor>& in, const Options& o) {
    const auto p = static_cast<float>(o.number("p", 0.5));
    const Philox random{static_cast<uint64_t>(o.integer("seed", 0)),
                        static_cast<uint64_t>(o.integer("stream", 0))};
    if (in.size() != 1) throw ShapeError(str(name, ": needs 1 tensor, got ", in.size()));
    return std::vector<Tensor>{op(in[0], p, random)};
  };
}

const bool registered = register_op("dropout", named("dropout", dropout)) &&
                        register_op("dropPath", named("dropPath", drop_path));

}  // namespace

}  // namespace mixpl
