#include "core/trace.h"

#include "core/context.h"

namespace mixpl {

int Trace::number_of(const Tensor& t) {
  if (!t.defined()) return -1;
  const auto next = static_cast<int>(tensors_.size());
  const auto [at, is_new] = numbers_.try_emplace(t.impl().get(), next);
  if (!is_new) return at->second;
  tensors_.push_back(t);
  // Another handle of values that are known: nobody overwrites them, as they are kept here.
  if (t.numel() > 0) {
    const auto [first, is_first] = places_.try_emplace({t.raw(), t.numel()}, next);
    if (!is_first) steps_.push_back({"reshape", {first->second}, {next}, {}});
  }
  return next;
}

void Trace::add(const char* op, const std::vector<Tensor>& inputs,
                const std::vector<Tensor>& outputs, Numbers numbers) {
  TraceStep step{op, {}, {}, std::move(numbers)};
  for (const Tensor& t : inputs) step.inputs.push_back(number_of(t));
  for (const Tensor& t : outputs) step.outputs.push_back(number_of(t));
  steps_.push_back(std::move(step));
}

std::vector<int> Trace::sources() const {
  std::vector<bool> made(tensors_.size());
  for (const TraceStep& step : steps_)
    for (int output : step.outputs) made[output] = true;
  std::vector<int> sources;
  for (size_t i = 0; i < made.size(); ++i)
    if (!made[i]) sources.push_back(static_cast<int>(i));
  return sources;
}

void note(const char* op, const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs,
          Trace::Numbers numbers) {
  if (Trace* trace = Context::current().trace) trace->add(op, inputs, outputs, std::move(numbers));
}

bool is_traced() { return Context::current().trace != nullptr; }

}  // namespace mixpl
