#include "ops/embedding/embedding.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "ops/registry.h"

namespace mixpl {

Tensor embedding(const Tensor& table, const Tensor& index, DType dtype) {
  const Check check("embedding");
  check.dtype("table", table, DType::f32);
  check.rank("table", table, 2, "K, C");
  check.dtype("index", index, DType::i32);
  check.same_device("index", index, table);
  if (dtype != DType::f32 && dtype != DType::bf16)
    throw DTypeError(str("embedding: dtype must be f32 or bf16, got ", name_of(dtype)));
  std::vector<int64_t> shape = index.shape().sizes();
  shape.push_back(table.size(1));
  Tensor y = Tensor::empty(Shape(std::move(shape)), dtype, table.device());
  MIXPL_DISPATCH(table.device(), embedding_forward, table, index, y);
  record(y, {table}, [index, table](const Tensor& dy) {
    Tensor dtable = Tensor::empty_like(table);
    MIXPL_DISPATCH(table.device(), embedding_backward, dy, index, dtable);
    return Gradients{dtable};
  });
  return y;
}

namespace {

// On the host: waits for a GPU that has the index.
void check_index(const Tensor& table, const Tensor& index) {
  const Check check("embedding");
  check.rank("table", table, 2, "K, C");
  check.dtype("index", index, DType::i32);
  int64_t i = 0;
  for (int32_t row : index.to_vector<int32_t>()) {
    if (row < -1 || row >= table.size(0))
      throw RangeError(
          str("embedding: index must be in [-1, ", table.size(0) - 1, "], got ", row, " at ", i));
    ++i;
  }
}

// table, index; { dtype: 'f32' | 'bf16' }.
const bool registered = register_op("embedding", [](const std::vector<Tensor>& in,
                                                    const Options& o) {
  if (in.size() != 2) throw ShapeError(str("embedding: needs 2 tensors, got ", in.size()));
  const std::string dtype = o.text("dtype", "f32");
  if (dtype != "f32" && dtype != "bf16")
    throw DTypeError(str("embedding: dtype must be 'f32' or 'bf16', got '", dtype, "'"));
  check_index(in[0], in[1]);
  return std::vector<Tensor>{embedding(in[0], in[1], dtype == "f32" ? DType::f32 : DType::bf16)};
});
}  // namespace

}  // namespace mixpl
