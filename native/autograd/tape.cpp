#include "autograd/tape.h"

#include "core/launch.h"
#include "core/tensor_values.h"

namespace mixpl {

Tape Tape::that_forgets() {
  Tape tape;
  tape.forgets_ = true;
  return tape;
}

void Tape::push(std::vector<Tensor> outputs, std::vector<Tensor> inputs, Backward backward) {
  if (forgets_) return;
  nodes_.push_back({std::move(outputs), std::move(inputs), std::move(backward)});
}

void Tape::clear() {
  // Last first: what depends on a tensor goes before it, so deep graphs free without recursion.
  while (!nodes_.empty()) nodes_.pop_back();
}

void accumulate_grad(Tensor& target, Tensor grad) {
  if (grad.shape() != target.shape())
    throw ShapeError(str("backward: gradient must be ", target.shape(), ", got ", grad.shape()));
  if (grad.device() != target.device())
    throw DeviceError(
        str("backward: gradient must be on ", target.device(), ", got ", grad.device()));
  if (!target.impl()->grad) {
    target.set_grad(grad);
    return;
  }
  Tensor sum = target.grad();
  target.set_grad(Tensor());
  const void* masked_by =
      sum.impl()->masked_by == grad.impl()->masked_by ? grad.impl()->masked_by : nullptr;
  // Add into whichever of the two belongs to nobody else.
  if (!sum.unique() && grad.unique() && grad.dtype() == sum.dtype()) std::swap(sum, grad);
  if (!sum.unique()) sum = sum.clone();
  if (sum.numel()) MIXPL_DISPATCH(sum.device(), add_values, grad, sum);
  sum.impl()->masked_by = masked_by;
  target.set_grad(sum);
}

Tensor take_grad(Tensor target) {
  if (!target.impl()->grad || target.impl()->grad->dtype != target.dtype()) return {};
  Tensor sum = target.grad();
  target.set_grad(Tensor());
  if (sum.unique()) return sum;
  target.set_grad(sum);
  return {};
}

void Tape::backward(const std::vector<Tensor>& roots, std::vector<Tensor> seeds) {
  for (size_t i = 0; i < roots.size(); ++i) {
    Tensor root = roots[i];
    if (root.requires_grad()) accumulate_grad(root, std::move(seeds[i]));
  }
  Context context = Context::current();
  context.tape = nullptr;
  ContextScope scope(context);
  try {
    while (!nodes_.empty()) {
      Node node = std::move(nodes_.back());
      nodes_.pop_back();
      std::vector<Tensor> douts;
      bool any = false;
      for (Tensor& output : node.outputs) {
        douts.push_back(output.grad());
        any = any || douts.back().defined();
        output.set_grad(Tensor());
      }
      node.outputs.clear();
      if (!any) continue;
      Gradients grads = node.backward(std::move(douts));
      node.backward = nullptr;
      if (grads.size() != node.inputs.size())
        throw StateError("backward: an op returned the wrong number of gradients");
      for (size_t i = 0; i < grads.size(); ++i) {
        Tensor grad = std::move(grads[i]);
        if (grad.defined() && node.inputs[i].requires_grad())
          accumulate_grad(node.inputs[i], std::move(grad));
      }
    }
  } catch (...) {
    // Of outputs that outlive this pass, too: folded filters are those of the next one.
    for (Node& node : nodes_)
      for (Tensor& output : node.outputs) output.set_grad(Tensor());
    clear();
    throw;
  }
}

bool recording(std::initializer_list<Tensor> inputs) {
  if (!Context::current().tape) return false;
  for (const Tensor& input : inputs)
    if (input.requires_grad()) return true;
  return false;
}

void record(std::vector<Tensor> outputs, std::vector<Tensor> inputs, Backward backward) {
  Tape* tape = Context::current().tape;
  if (!tape) return;
  bool needed = false;
  for (const Tensor& input : inputs) needed = needed || input.requires_grad();
  if (!needed) return;
  for (Tensor& output : outputs) output.set_requires_grad(true);
  tape->push(std::move(outputs), std::move(inputs), std::move(backward));
}

void record(const Tensor& output, std::vector<Tensor> inputs,
            std::function<Gradients(Tensor dout)> backward) {
  record(std::vector<Tensor>{output}, std::move(inputs),
         [backward = std::move(backward)](std::vector<Tensor> douts) {
           Tensor dout = std::move(douts[0]);
           douts.clear();  // so that the op may be the only owner and write in place
           return backward(std::move(dout));
         });
}

}  // namespace mixpl
