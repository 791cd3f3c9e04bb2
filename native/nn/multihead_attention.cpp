#include "nn/multihead_attention.h"

#include "core/check.h"
#include "core/context.h"
#include "ops/attention/attention.h"
#include "ops/linear/linear.h"
#include "ops/registry.h"
#include "ops/weight_rows/weight_rows.h"

namespace mixpl {
namespace {

// By rows `from` E … `to` E - 1 of the projections. What takes the rows follows at once, as their
// gradients want it.
Tensor project(const Tensor& x, const AttentionProjections& p, int64_t from, int64_t to) {
  if (from == 0 && to == 3) return linear(x, p.in_weight, p.in_bias);
  const int64_t columns = p.in_weight.size(1);
  const Tensor weight = weight_rows(p.in_weight, from * columns, to * columns);
  const Tensor bias = weight_rows(p.in_bias, from * columns, to * columns);
  return linear(x, weight, bias);
}

Tensor attend(const Tensor& query, const Tensor& key, const Tensor& value,
              const AttentionProjections& p, const AttentionOptions& options, const Tensor& mask) {
  if (!query.same_as(key))
    return attention(project(query, p, 0, 1), project(key, p, 1, 2), project(value, p, 2, 3),
                     options, {}, mask);
  if (query.same_as(value)) return packed_attention(project(query, p, 0, 3), {}, options, {}, mask);
  return packed_attention(project(query, p, 0, 2), project(value, p, 2, 3), options, {}, mask);
}

}  // namespace

Tensor multihead_attention(const Tensor& query, const Tensor& key, const Tensor& value,
                           const AttentionProjections& p, int64_t heads, const Tensor& mask) {
  const Check check("multiheadAttention");
  check.rank("in_weight", p.in_weight, 2, "3 E, E");
  const int64_t columns = p.in_weight.size(1);
  check.shape("in_weight", p.in_weight, {3 * columns, columns}, "3 E, E");
  check.shape("in_bias", p.in_bias, {3 * columns}, "3 E");
  check.at_least("heads", static_cast<double>(heads), 1);
  AttentionOptions options;
  options.heads = heads;
  return linear(attend(query, key, value, p, options, mask), p.out_weight, p.out_bias);
}

void check_head_width(int64_t columns) {
  if (Context::current().device.is_cuda() && columns > 128)
    throw ConfigError(str("attention: a head must have at most 128 columns on a GPU, got ", columns,
                          ": there must be more heads"));
}

MultiheadAttention::MultiheadAttention(const Scope& scope, const std::string& name, int64_t columns,
                                       int64_t heads, const Init& out)
    : heads_(heads) {
  check_head_width(columns / heads);
  const Scope at = scope.child(name).child("attn"), last = at.child("out_proj");
  projections_.in_weight =
      at.weight("in_proj_weight", {3 * columns, columns}, init::xavier_uniform());
  projections_.in_bias = at.weight("in_proj_bias", {3 * columns}, init::constant(0));
  projections_.out_weight = last.weight("weight", {columns, columns}, out);
  projections_.out_bias = last.weight("bias", {columns}, init::constant(0));
}

namespace {
// Inputs: query, key, value, in_weight, in_bias, out_weight, out_bias, then mask if {hasMask:
// true}. {same: 'key'}: query is the key, too, which is left out; {same: 'value'}: key and value.
const bool registered =
    register_op("multiheadAttention", [](const std::vector<Tensor>& in, const Options& o) {
      const std::string same = o.text("same", "none");
      if (same != "none" && same != "key" && same != "value")
        throw RangeError(
            str("multiheadAttention: same must be 'none', 'key' or 'value', got '", same, "'"));
      const bool has_mask = o.boolean("hasMask", false);
      const size_t first = same == "none" ? 3 : same == "key" ? 2 : 1;
      if (in.size() != first + 4 + has_mask)
        throw ShapeError(
            str("multiheadAttention: needs ", first + 4 + has_mask, " tensors, got ", in.size()));
      const AttentionProjections p{in[first], in[first + 1], in[first + 2], in[first + 3]};
      return std::vector<Tensor>{multihead_attention(in[0], in[first == 3 ? 1 : 0], in[first - 1],
                                                     p, o.integer("heads", 8),
                                                     has_mask ? in[first + 4] : Tensor())};
    });
}  // namespace

}  // namespace mixpl
