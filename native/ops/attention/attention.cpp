#include "ops/attention/attention.h"

#include <array>
#include <cmath>

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

void check_axis_of_heads(const Check& check, const char* name, const Tensor& t, int64_t heads) {
  if (t.size(2) < heads || t.size(2) % heads)
    throw ShapeError(str(check.op(), ": axis 2 of ", name, " must be a positive multiple of ",
                         heads, " (heads), got ", t.shape()));
}

// Image n has entry n % size(0).
void check_sharing(const Check& check, const char* name, const Tensor& t, int64_t images) {
  if (t.size(0) < 1 || images % t.size(0))
    throw ShapeError(str(check.op(), ": axis 0 of ", name, " must be a divisor of ", images,
                         " (images), got ", t.shape()));
}

void check_operand(const Check& check, const char* name, const Tensor& t, const Tensor& first,
                   const char* letters) {
  check.dtype(name, t, first.dtype());
  check.rank(name, t, 3, letters);
  check.same_device(name, t, first);
}

void check_bias_and_mask(const Check& check, const AttentionCall& c) {
  const Tensor& q = c.q.tensor;
  if (c.bias.defined()) {
    check.dtype("bias", c.bias, DType::f32);
    check.rank("bias", c.bias, 4, "B, M, Q, K");
    check_sharing(check, "bias", c.bias, c.images);
    check.shape("bias", c.bias, {c.bias.size(0), c.heads, c.queries, c.keys}, "B, M, Q, K");
    check.same_device("bias", c.bias, q);
  }
  if (c.mask.defined()) {
    check.dtype("mask", c.mask, DType::u8);
    check.rank("mask", c.mask, 3, "B', Q | 1, K");
    check_sharing(check, "mask", c.mask, c.images);
    if (c.mask.size(1) != 1) check.size("mask", c.mask, 1, c.queries, "queries, or 1");
    check.size("mask", c.mask, 2, c.keys, "keys");
    check.same_device("mask", c.mask, q);
  }
}

float scale_of(const AttentionOptions& options, int64_t depth) {
  return options.scale > 0 ? options.scale : 1 / std::sqrt(static_cast<float>(depth));
}

bool empty(const AttentionCall& c) { return c.images == 0 || c.queries == 0 || c.keys == 0; }

// @param inputs  what the operands are columns of, each once, and the bias
// @param operand which input each of q, k, v lies in
Tensor run(const AttentionCall& c, std::vector<Tensor> inputs,
           const std::array<size_t, 3>& operand) {
  const Tensor& q = c.q.tensor;
  const Shape shape{c.images, c.queries, c.heads * c.value_depth};
  if (empty(c)) {
    Tensor out = Tensor::zeros(shape, q.dtype(), q.device());
    record(out, inputs, [=](const Tensor&) {
      Gradients grads;
      for (const Tensor& t : inputs)
        grads.push_back(t.requires_grad() ? Tensor::zeros(t.shape(), t.dtype(), t.device())
                                          : Tensor());
      return grads;
    });
    return out;
  }
  Tensor out = Tensor::empty(shape, q.dtype(), q.device());
  Tensor log_sums = Tensor::empty({c.images, c.heads, c.queries}, DType::f32, q.device());
  MIXPL_DISPATCH(q.device(), attention_forward, c, out, log_sums);
  record(out, inputs, [=, kept = out.detach()](const Tensor& dout) {
    Gradients grads;
    for (const Tensor& t : inputs)
      grads.push_back(t.requires_grad() ? Tensor::empty_like(t) : Tensor());
    AttentionGradients wanted;
    wanted.dq = {grads[operand[0]], c.q.column};
    wanted.dk = {grads[operand[1]], c.k.column};
    wanted.dv = {grads[operand[2]], c.v.column};
    wanted.dbias = grads.back();
    MIXPL_DISPATCH(c.q.tensor.device(), attention_backward, c, dout, kept, log_sums, wanted);
    return grads;
  });
  if (is_traced())
    note("attention", {c.q.tensor, c.k.tensor, c.v.tensor, c.bias, c.mask}, {out},
         {{"heads", static_cast<double>(c.heads)},
          {"depth", static_cast<double>(c.depth)},
          {"valueDepth", static_cast<double>(c.value_depth)},
          {"scale", c.scale},
          {"column0", static_cast<double>(c.q.column)},
          {"column1", static_cast<double>(c.k.column)},
          {"column2", static_cast<double>(c.v.column)}});
  return out;
}

}  // namespace

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options,
                 const Tensor& bias, const Tensor& mask) {
  const Check check("attention");
  check.floating("q", q);
  check.rank("q", q, 3, "N, Q, M * D");
  check.at_least("heads", static_cast<double>(options.heads), 1);
  check_axis_of_heads(check, "q", q, options.heads);
  check_operand(check, "k", k, q, "N, K, M * D");
  check.shape("k", k, {q.size(0), k.size(1), q.size(2)}, "images and columns of q");
  check_operand(check, "v", v, q, "N, K, M * Dv");
  check.shape("v", v, {q.size(0), k.size(1), v.size(2)}, "images and rows of k");
  check_axis_of_heads(check, "v", v, options.heads);
  AttentionCall c;
  c.images = q.size(0), c.queries = q.size(1), c.keys = k.size(1), c.heads = options.heads;
  c.depth = q.size(2) / c.heads, c.value_depth = v.size(2) / c.heads;
  c.scale = scale_of(options, c.depth);
  c.q = {q, 0}, c.k = {k, 0}, c.v = {v, 0};
  c.bias = bias, c.mask = mask;
  check_bias_and_mask(check, c);
  return run(c, {q, k, v, bias}, {0, 1, 2});
}

Tensor packed_attention(const Tensor& packed, const Tensor& v, const AttentionOptions& options,
                        const Tensor& bias, const Tensor& mask) {
  const Check check("packedAttention");
  check.floating("packed", packed);
  check.rank("packed", packed, 3, v.defined() ? "N, Q, 2 M D" : "N, Q, 3 M D");
  check.at_least("heads", static_cast<double>(options.heads), 1);
  const int64_t parts = v.defined() ? 2 : 3;
  check_axis_of_heads(check, "packed", packed, parts * options.heads);
  const int64_t columns = packed.size(2) / parts;
  AttentionCall c;
  c.images = packed.size(0), c.queries = c.keys = packed.size(1), c.heads = options.heads;
  c.depth = c.value_depth = columns / c.heads;
  c.scale = scale_of(options, c.depth);
  c.q = {packed, 0}, c.k = {packed, columns}, c.v = {packed, 2 * columns};
  if (v.defined()) {
    check_operand(check, "v", v, packed, "N, Q, M * Dv");
    check.shape("v", v, {c.images, c.queries, v.size(2)}, "images and rows of packed");
    check_axis_of_heads(check, "v", v, options.heads);
    c.v = {v, 0};
    c.value_depth = v.size(2) / c.heads;
  }
  c.bias = bias, c.mask = mask;
  check_bias_and_mask(check, c);
  if (!v.defined()) return run(c, {packed, bias}, {0, 0, 0});
  return run(c, {packed, v, bias}, {0, 0, 1});
}

namespace {

AttentionOptions read_options(const Options& o) {
  AttentionOptions options;
  options.heads = o.integer("heads", options.heads);
  options.scale = static_cast<float>(o.number("scale", options.scale));
  return options;
}

// The tensors behind the first `operands`: bias if {hasBias: true}, mask if {hasMask: true}.
std::pair<Tensor, Tensor> bias_and_mask(const char* op, const std::vector<Tensor>& in,
                                        size_t operands, const Options& o) {
  const bool has_bias = o.boolean("hasBias", false), has_mask = o.boolean("hasMask", false);
  const size_t wanted = operands + has_bias + has_mask;
  if (in.size() != wanted)
    throw ShapeError(str(op, ": needs ", wanted, " tensors, got ", in.size()));
  return {has_bias ? in[operands] : Tensor(), has_mask ? in[operands + has_bias] : Tensor()};
}

const bool registered =
    register_op("attention", [](const std::vector<Tensor>& in, const Options& o) {
      const AttentionOptions options = read_options(o);
      const auto [bias, mask] = bias_and_mask("attention", in, 3, o);
      return std::vector<Tensor>{attention(in[0], in[1], in[2], options, bias, mask)};
    });

// {hasValues: true}: v is a tensor of its own.
const bool registered_packed =
    register_op("packedAttention", [](const std::vector<Tensor>& in, const Options& o) {
      const AttentionOptions options = read_options(o);
      const bool has_values = o.boolean("hasValues", false);
      const auto [bias, mask] = bias_and_mask("packedAttention", in, 1 + has_values, o);
      return std::vector<Tensor>{
          packed_attention(in[0], has_values ? in[1] : Tensor(), options, bias, mask)};
    });

}  // namespace
}  // namespace mixpl
