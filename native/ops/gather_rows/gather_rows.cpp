#include "ops/gather_rows/gather_rows.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {

Tensor gather_rows(const Tensor& x, const Tensor& rows, int64_t columns) {
  const Check check("gatherRows");
  check.floating("x", x);
  check.dtype("rows", rows, DType::i32);
  check.rank("rows", rows, 1, "P");
  check.same_device("rows", rows, x);
  check.at_least("columns", static_cast<double>(columns), 1);
  if (x.numel() % columns != 0)
    throw ShapeError(str("gatherRows: x must hold rows of ", columns, " numbers, got ", x.shape()));
  Tensor y = Tensor::empty({rows.numel(), columns}, DType::f32, x.device());
  MIXPL_DISPATCH(x.device(), gather_rows_forward, x, rows, y);
  record(y, {x},
         [rows, shape = x.shape(), dtype = x.dtype(), device = x.device()](const Tensor& dy) {
           Tensor dx = Tensor::zeros(shape, dtype, device);
           MIXPL_DISPATCH(device, gather_rows_backward, dy, rows, dx);
           return Gradients{dx};
         });
  if (is_traced()) note("gatherRows", {x, rows}, {y});
  return y;
}

namespace {

// On the host: waits for a GPU that has the rows.
void check_rows(const Tensor& rows, int64_t count) {
  Check("gatherRows").dtype("rows", rows, DType::i32);
  std::vector<bool> taken(static_cast<size_t>(count));
  int64_t i = 0;
  for (int32_t row : rows.to_vector<int32_t>()) {
    if (row < 0 || row >= count || taken[static_cast<size_t>(row)])
      throw RangeError(str("gatherRows: rows must be in [0, ", count - 1,
                           "], none of them twice, got ", row, " at ", i));
    taken[static_cast<size_t>(row)] = true;
    ++i;
  }
}

// x, rows; { columns }, the last axis of x when absent.
const bool registered =
    register_op("gatherRows", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() != 2) throw ShapeError(str("gatherRows: needs 2 tensors, got ", in.size()));
      Check("gatherRows").defined("x", in[0]);
      if (in[0].rank() < 1) throw ShapeError("gatherRows: x must have rows, got a scalar");
      const int64_t columns = o.integer("columns", in[0].size(-1));
      check_rows(in[1], columns > 0 ? in[0].numel() / columns : 0);
      return std::vector<Tensor>{gather_rows(in[0], in[1], columns)};
    });
}  // namespace

}  // namespace mixpl
