#include "optim/ema.h"

#include "core/check.h"
#include "ops/registry.h"

namespace mixpl {

void ema_update(const std::vector<Tensor>& teacher, const std::vector<Tensor>& student,
                double momentum, EmaTable& table) {
  const Check check("ema");
  check.in_range("momentum", momentum, 0, 1);
  if (teacher.size() != student.size())
    throw ShapeError(
        str("ema: student must hold ", teacher.size(), " tensors, got ", student.size()));
  std::vector<EmaRow> rows;
  for (size_t i = 0; i < teacher.size(); ++i) {
    check.dtype("teacher", teacher[i], DType::f32);
    check.dtype("student", student[i], DType::f32);
    check.shape("student", student[i], teacher[i].shape(), "as the teacher");
    check.same_device("teacher", teacher[i], teacher[0]);
    check.same_device("student", student[i], teacher[0]);
    rows.push_back({teacher[i].data<float>(), student[i].data<float>(), teacher[i].numel()});
  }
  if (momentum == 0 || teacher.empty()) return;
  table.assign(std::move(rows));
  const Device device = teacher[0].device();
  const float keep = static_cast<float>(1 - momentum), share = static_cast<float>(momentum);
  MIXPL_DISPATCH(device, ema_update, table, device, keep, share);
  for (Tensor t : teacher) t.touch();
}

void ema_update(const std::vector<Tensor>& teacher, const std::vector<Tensor>& student,
                double momentum) {
  EmaTable table;
  ema_update(teacher, student, momentum, table);
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
