#include "core/trace.h"

#include "core/context.h"

namespace mixpl {

int Trace::added(const Tensor& t) {
  const auto number = static_cast<int>(shapes_.size());
  shapes_.push_back(t.shape());
  handles_[t.impl().get()] = {t.impl(), number};
  return number;
}

int Trace::number_of(const Tensor& t) {
  if (!t.defined()) return -1;
  const auto handle = handles_.find(t.impl().get());
  if (handle != handles_.end() && !handle->second.owner.expired()) return handle->second.number;
  const int number = added(t);
  const Place place{t.raw(), t.numel()};
  const auto first = places_.find(place);
  if (t.numel() > 0 && first != places_.end() && !first->second.owner.expired()) {
    steps_.push_back({"reshape", {first->second.number}, {number}, {}});
    return number;
  }
  sources_.emplace(number, t);
  places_[place] = {t.impl()->storage, number};
  return number;
}

void Trace::add(const char* op, const std::vector<Tensor>& inputs,
                const std::vector<Tensor>& outputs, Numbers numbers) {
  TraceStep step{op, {}, {}, std::move(numbers)};
  for (const Tensor& t : inputs) step.inputs.push_back(number_of(t));
  for (const Tensor& t : outputs) {
    step.outputs.push_back(t.defined() ? added(t) : -1);
    if (t.defined()) places_[{t.raw(), t.numel()}] = {t.impl()->storage, step.outputs.back()};
  }
  steps_.push_back(std::move(step));
}

void note(const char* op, const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs,
          Trace::Numbers numbers) {
  if (Trace* trace = Context::current().trace) trace->add(op, inputs, outputs, std::move(numbers));
}

bool is_traced() { return Context::current().trace != nullptr; }

}  // namespace mixpl
