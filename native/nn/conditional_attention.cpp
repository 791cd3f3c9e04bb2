#include "nn/conditional_attention.h"

#include "nn/mlp.h"
#include "nn/multihead_attention.h"
#include "ops/add/add.h"
#include "ops/attention/attention.h"
#include "ops/concat_channels/concat_channels.h"
#include "ops/reshape/reshape.h"

namespace mixpl {
namespace {

// The makers of projections of one attention.
struct Projections {
  Scope scope;
  int64_t channels;

  Linear in(const char* name) const {
    return Linear(scope, name, channels, channels, init::xavier_uniform(), {},
                  uniform_bias(channels));
  }
  Linear out() const {
    return Linear(scope, "out_proj", channels, channels, init::xavier_uniform());
  }
};

AttentionOptions heads_of(int64_t heads) {
  AttentionOptions options;
  options.heads = heads;
  return options;
}

}  // namespace

ConditionalSelfAttention::ConditionalSelfAttention(const Scope& scope, const std::string& name,
                                                   int64_t channels, int64_t heads)
    : heads_(heads) {
  const Projections make{scope.child(name), channels};
  q_content_ = make.in("qcontent_proj");
  q_position_ = make.in("qpos_proj");
  k_content_ = make.in("kcontent_proj");
  k_position_ = make.in("kpos_proj");
  v_ = make.in("v_proj");
  out_ = make.out();
}

Tensor ConditionalSelfAttention::operator()(const Tensor& x, const Tensor& positions) const {
  const Tensor q = add(q_content_(x), q_position_(positions));
  const Tensor k = add(k_content_(x), k_position_(positions));
  return out_(attention(q, k, v_(x), heads_of(heads_)));
}

ConditionalCrossAttention::ConditionalCrossAttention(const Scope& scope, const std::string& name,
                                                     int64_t channels, int64_t heads, bool first)
    : heads_(heads), first_(first) {
  check_head_width(2 * channels / heads);  // content beside position
  const Projections make{scope.child(name), channels};
  q_content_ = make.in("qcontent_proj");
  if (first) q_position_ = make.in("qpos_proj");
  k_content_ = make.in("kcontent_proj");
  k_position_ = make.in("kpos_proj");
  v_ = make.in("v_proj");
  q_encoding_ = make.in("qpos_sine_proj");
  out_ = make.out();
}

Tensor ConditionalCrossAttention::beside(const Tensor& content, const Tensor& position) const {
  const int64_t images = content.size(0), rows = content.size(1), channels = content.size(2);
  const Shape of_heads{images, rows, heads_, channels / heads_};
  return reshape(concat_channels({reshape(content, of_heads), reshape(position, of_heads)}),
                 {images, rows, 2 * channels});
}

Tensor ConditionalCrossAttention::operator()(const Tensor& x, const Tensor& positions,
                                             const Tensor& encoding,
                                             const AttentionKeys& keys) const {
  Tensor q = q_content_(x), k = k_content_(keys.content);
  const Tensor k_position = k_position_(keys.positions);
  if (first_) {
    q = add(q, q_position_(positions));
    k = add(k, k_position);
  }
  // Scores over the square root of the joint depth, as attention's own scale has it.
  const Tensor seen = attention(beside(q, q_encoding_(encoding)), beside(k, k_position),
                                v_(keys.content), heads_of(heads_), {}, keys.mask);
  return out_(seen);
}

}  // namespace mixpl
