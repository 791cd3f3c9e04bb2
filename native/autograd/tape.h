// Reverse-mode differentiation: an op that ran with a tape on leaves behind how to go back.
#pragma once

#include <functional>
#include <vector>

#include "core/context.h"
#include "core/tensor.h"

namespace mixpl {

/// One gradient per input of an op, in order; an undefined Tensor means "none".
using Gradients = std::vector<Tensor>;
/// Gradients of the outputs (undefined where nobody asked) to gradients of the inputs.
using Backward = std::function<Gradients(std::vector<Tensor> douts)>;

/// What one forward pass recorded. backward() runs it once and empties it.
class Tape {
 public:
  /// One that keeps nothing: ops run as if they were recorded, and their outputs say whether they
  /// have a gradient.
  static Tape that_forgets();

  void push(std::vector<Tensor> outputs, std::vector<Tensor> inputs, Backward backward);

  /// Back-propagates from `roots` with the given seeds (same shapes). Leaves keep the sum of what
  /// reached them in grad(), added to what was there; the activations are freed on the way.
  void backward(const std::vector<Tensor>& roots, std::vector<Tensor> seeds);

  void clear();
  bool empty() const { return nodes_.empty(); }

 private:
  struct Node {
    std::vector<Tensor> outputs, inputs;
    Backward backward;
  };
  std::vector<Node> nodes_;
  bool forgets_ = false;
};

/// Adds `grad` to what `target` has gathered, in place where nobody else holds it.
void accumulate_grad(Tensor& target, Tensor grad);

/// What `target` has gathered, taken from it, for an op to add its share to and to return as its
/// gradient: saves a pass over memory. Undefined where there is none or somebody else holds it.
Tensor take_grad(Tensor target);

/// Records an op: does nothing unless a tape is on and an input needs a gradient. In `backward`,
/// ask input.requires_grad() before computing a gradient that nobody wants.
void record(std::vector<Tensor> outputs, std::vector<Tensor> inputs, Backward backward);
/// The same for ops with one output.
void record(const Tensor& output, std::vector<Tensor> inputs,
            std::function<Gradients(Tensor dout)> backward);
/// True when record() would keep something: lets an op skip work that only the backward needs.
bool recording(std::initializer_list<Tensor> inputs);

}  // namespace mixpl
