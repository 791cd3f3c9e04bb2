#include "optim/ema.h"

#include "core/check.h"
#include "ops/registry.h"
#include "optim/flat_chunks.h"

namespace mixpl {

void ema_update(const std::vector<Tensor>& teacher, const std::vector<Tensor>& student,
                double momentum) {
  const Check check("ema");
  check.in_range("momentum", momentum, 0, 1);
  if (teacher.size() != student.size())
    throw ShapeError(
        str("ema: student must hold ", teacher.size(), " tensors, got ", student.size()));
  for (size_t i = 0; i < teacher.size(); ++i) {
    check.dtype("teacher", teacher[i], DType::f32);
    check.dtype("student", student[i], DType::f32);
    check.shape("student", student[i], teacher[i].shape(), "as the teacher");
  }
  if (momentum == 0) return;
  const float a = static_cast<float>(momentum), b = static_cast<float>(1 - momentum);
  for_each_chunk(teacher, [&](const FlatChunk& c) {
    float* __restrict t = teacher[c.tensor].data<float>();
    const float* __restrict s = student[c.tensor].data<float>();
    if (momentum == 1)
      std::copy(s + c.begin, s + c.end, t + c.begin);
    else
      for (int64_t k = c.begin; k < c.end; ++k) t[k] = b * t[k] + a * s[k];
  });
  for (Tensor t : teacher) t.touch();
}

namespace {
// Inputs: teacher, student; { momentum }. Output: the teacher after the update.
const bool registered = register_op("ema", [](const std::vector<Tensor>& in, const Options& o) {
  if (in.size() != 2) throw ShapeError(str("ema: needs 2 tensors, got ", in.size()));
  const Tensor out = in[0].clone();
  ema_update({out}, {in[1]}, o.number("momentum", 2e-4));
  return std::vector<Tensor>{out};
});
}  // namespace

}  // namespace mixpl
