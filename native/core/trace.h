// What a forward pass computes, step by step, for who writes it down in another form. Operations
// that can be written down say so while a trace is on; a step that does not say so shows as a
// constant that changes with the input.
#pragma once

#include <map>
#include <memory>
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

/// Keeps the values of sources alone: what a step made goes when the network lets go of it, so a
/// traced pass needs hardly more memory than an untraced one.
class Trace {
 public:
  using Numbers = std::map<std::string, double>;

  /// The number of a tensor that is read. One that no step made is a source, which is kept; another
  /// handle of values that a step made (or of a source) is a step "reshape".
  int number_of(const Tensor& t);
  /// Outputs are new numbers, whatever held their place before.
  void add(const char* op, const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs,
           Numbers numbers);

  const std::vector<TraceStep>& steps() const { return steps_; }
  /// By number.
  const std::vector<Shape>& shapes() const { return shapes_; }
  /// What no step made, by number.
  const std::map<int, Tensor>& sources() const { return sources_; }

 private:
  // An address says who it is as long as its owner lives.
  struct Known {
    std::weak_ptr<const void> owner;
    int number;
  };
  using Place = std::pair<const void*, int64_t>;  // the first value, and how many

  int added(const Tensor& t);

  std::vector<TraceStep> steps_;
  std::vector<Shape> shapes_;
  std::map<int, Tensor> sources_;
  std::map<const void*, Known> handles_;
  std::map<Place, Known> places_;
};

/// Adds a step to the trace of the context; nothing without one.
void note(const char* op, const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs,
          Trace::Numbers numbers = {});
/// Whether there is one: spares the arguments.
bool is_traced();

}  // namespace mixpl
