#include "autograd/recompute.h"

#include "autograd/tape.h"

namespace mixpl {

std::vector<Tensor> recompute(const std::vector<Tensor>& inputs, Part part) {
  Context context = Context::current();
  Tape* const tape = context.tape;
  if (!tape) return part(inputs);
  std::vector<Tensor> outputs;
  {
    Tape forgetful = Tape::that_forgets();
    context.tape = &forgetful;
    ContextScope scope(context);
    outputs = part(inputs);
  }
  bool needed = false;
  for (const Tensor& output : outputs) needed = needed || output.requires_grad();
  if (!needed) return outputs;
  context.recomputing = true;
  tape->push(outputs, inputs, [inputs, part, context](std::vector<Tensor> douts) mutable {
    // Copies of another identity: what is recorded now must not meet the outer tape's.
    std::vector<Tensor> copies;
    for (Tensor input : inputs) {
      copies.push_back(input.detach().set_requires_grad(input.requires_grad()));
      // What the input has gathered so far comes first in its sum, as it would have.
      copies.back().set_grad(input.grad());
      input.set_grad(Tensor());
    }
    Tape inner;
    context.tape = &inner;
    std::vector<Tensor> roots;
    {
      ContextScope scope(context);
      roots = part(copies);
    }
    std::vector<Tensor> seeds;
    for (size_t i = 0; i < roots.size(); ++i) {
      if (!douts[i].defined()) continue;
      roots[seeds.size()] = roots[i];
      seeds.push_back(std::move(douts[i]));
    }
    roots.resize(seeds.size());
    inner.backward(roots, std::move(seeds));
    Gradients grads;
    for (Tensor& copy : copies) {
      grads.push_back(copy.grad());
      copy.set_grad(Tensor());
    }
    return grads;
  });
  return outputs;
}

}  // namespace mixpl
