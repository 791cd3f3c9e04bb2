#include "optim/ema.h"

#include "core/check.h"
#include "ops/registry.h"

namespace mixpl {

void EmaPairs::assign(std::vector<Tensor> teacher, const std::vector<Tensor>& student) {
  const Check check("ema");
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
  table_.assign(std::move(rows));
  teacher_ = std::move(teacher);
  if (teacher_.empty() || !teacher_[0].device().is_cuda()) return;
  // Now, so that an update is a launch and nothing that could fail for want of memory.
  table_.rows_on(teacher_[0].device());
  table_.pieces_on(teacher_[0].device());
}

void EmaPairs::update(double momentum, const Tensor& clip) {
  Check("ema").in_range("momentum", momentum, 0, 1);
  if (momentum == 0 || teacher_.empty()) return;
  const Device device = teacher_[0].device();
  const float keep = static_cast<float>(1 - momentum), share = static_cast<float>(momentum);
  MIXPL_DISPATCH(device, ema_update, table_, device, keep, share,
                 clip.defined() ? Clip::of(clip) : nullptr);
  for (Tensor& t : teacher_) t.touch();
}

namespace {
// Inputs: teacher, student; { momentum }. Output: the teacher after the update.
const bool registered = register_op("ema", [](const std::vector<Tensor>& in, const Options& o) {
  if (in.size() != 2) throw ShapeError(str("ema: needs 2 tensors, got ", in.size()));
  const Tensor out = in[0].clone();
  EmaPairs pairs;
  pairs.assign({out}, {in[1]});
  pairs.update(o.number("momentum", 2e-4));
  return std::vector<Tensor>{out};
});
}  // namespace

}  // namespace mixpl
