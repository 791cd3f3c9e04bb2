#include "ops/relative_position_bias/relative_position_bias.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "ops/registry.h"

namespace mixpl {

Tensor relative_position_bias(const Tensor& table, int64_t size) {
  const Check check("relativePositionBias");
  check.dtype("table", table, DType::f32);
  check.rank("table", table, 2, "(2 size - 1)^2, M");
  check.in_range("size", static_cast<double>(size), 1, 64);
  const int64_t distances = (2 * size - 1) * (2 * size - 1), tokens = size * size;
  check.size("table", table, 0, distances, "(2 size - 1)^2");
  Tensor bias = Tensor::empty({1, table.size(1), tokens, tokens}, DType::f32, table.device());
  if (bias.numel())
    MIXPL_DISPATCH(table.device(), relative_position_bias_forward, table, size, bias);
  record(bias, {table}, [size, shape = table.shape()](const Tensor& dbias) {
    Tensor dtable = Tensor::empty(shape, DType::f32, dbias.device());
    if (dtable.numel())
      MIXPL_DISPATCH(dbias.device(), relative_position_bias_backward, dbias, size, dtable);
    return Gradients{dtable};
  });
  return bias;
}

namespace {
const bool registered =
    register_op("relativePositionBias", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() != 1)
        throw ShapeError(str("relativePositionBias: needs 1 tensor, got ", in.size()));
      return std::vector<Tensor>{relative_position_bias(in[0], o.integer("size", 7))};
    });
}  // namespace

}  // namespace mixpl
