#include "ops/weight_rows/weight_rows.h"

#include <algorithm>

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/tensor_values.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

// Kernels take it that tensors start so.
bool is_aligned(const Tensor& t) { return reinterpret_cast<uintptr_t>(t.raw()) % 64 == 0; }

// Over the same storage, outside the tape.
Tensor rows_of(const Tensor& t, int64_t begin, int64_t end) {
  std::vector<int64_t> sizes = t.shape().sizes();
  sizes[0] = end - begin;
  const Shape shape(std::move(sizes));
  auto impl = std::make_shared<TensorImpl>();
  const int64_t row = t.nbytes() / std::max<int64_t>(t.size(0), 1);
  impl->storage =
      std::shared_ptr<void>(t.impl()->storage, static_cast<char*>(t.raw()) + begin * row);
  impl->shape = shape;
  impl->dtype = t.dtype();
  impl->device = t.device();
  return Tensor(std::move(impl));
}

}  // namespace

Tensor weight_rows(const Tensor& weight, int64_t begin, int64_t end) {
  const Check check("weightRows");
  check.dtype("weight", weight, DType::f32);
  if (weight.rank() < 1)
    throw ShapeError(str("weightRows: weight must have at least one axis, got ", weight.shape()));
  check.in_range("begin", static_cast<double>(begin), 0, static_cast<double>(weight.size(0)));
  check.in_range("end", static_cast<double>(end), static_cast<double>(begin),
                 static_cast<double>(weight.size(0)));
  const Tensor rows = weight.derived<Tensor>(str("rows ", begin, " ", end), [&] {
    const Tensor view = rows_of(weight, begin, end);
    return is_aligned(view) ? view : view.clone();
  });
  record(rows, {weight}, [=](const Tensor& drows) {
    Tensor sum = is_aligned(rows_of(weight, begin, end)) ? take_grad(weight) : Tensor();
    if (sum.defined()) {
      if (drows.numel())
        MIXPL_DISPATCH(weight.device(), add_values, drows, rows_of(sum, begin, end));
    } else {
      sum = Tensor::zeros(weight.shape(), DType::f32, weight.device());
      if (drows.numel())
        MIXPL_DISPATCH(weight.device(), copy_values, drows, rows_of(sum, begin, end));
    }
    return Gradients{sum};
  });
  return rows;
}

namespace {
const bool registered =
    register_op("weightRows", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() != 1) throw ShapeError(str("weightRows: needs 1 tensor, got ", in.size()));
      const int64_t begin = o.integer("begin", 0);
      return std::vector<Tensor>{weight_rows(in[0], begin, o.integer("end", in[0].size(0)))};
    });
}  // namespace

}  // namespace mixpl
