// What a forward pass computes, step by step, for who writes it down in another form. Operations
// that can be written down say so while a trace is on; a step that does not say so shows as a
// constant that changes with the input.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/tensor.h"

namespace mixpl {

/// One operation. Tensors are numbered; -1 is one that is undefined.
struct TraceStep {
  std::string op;
  std::vector<int> inputs, outputs;
  std::map<std::string, double> numbers;
};

class Trace {
 public:
  using Numbers = std::map<std::string, double>;

  /// The number of a tensor, which is kept alive so that no other takes its place.
  int number_of(const Tensor& t);
  void add(const char* op, const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs,
           Numbers numbers);

  const std::vector<TraceStep>& steps() const { return steps_; }
  /// By number.
  const std::vector<Tensor>& tensors() const { return tensors_; }
  /// Numbers of what no step made.
  std::vector<int> sources() const;

 private:
  std::vector<TraceStep> steps_;
  std::vector<Tensor> tensors_;
  std::map<const TensorImpl*, int> numbers_;
  std::map<std::pair<const void*, int64_t>, int> places_;  // of the first handle of some values
};

/// Adds a step to the trace of the context; nothing without one.
void note(const char* op, const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs,
          Trace::Numbers numbers = {});
/// Whether there is one: spares the arguments.
bool is_traced();

}  // namespace mixpl
