// Attention whose contents and positions have projections of their own (Meng et al. 2021,
// arXiv:2108.06152), as mmdetection's ConditionalAttention.
#pragma once

#include <string>

#include "nn/linear.h"

namespace mixpl {

/// Of queries to each other; the projections of content and position are added.
/// Parameters: <name>.{qcontent,qpos,kcontent,kpos,v,out}_proj.{weight, bias}; weights as Glorot's,
/// biases uniform as torch's but for out_proj's, which are 0.
class ConditionalSelfAttention {
 public:
  ConditionalSelfAttention() = default;
  ConditionalSelfAttention(const Scope& scope, const std::string& name, int64_t channels,
                           int64_t heads);

  /// @param x         [N, Q, C]
  /// @param positions [N, Q, C]
  /// @return          [N, Q, C], without its residual
  Tensor operator()(const Tensor& x, const Tensor& positions) const;

 private:
  Linear q_content_, q_position_, k_content_, k_position_, v_, out_;
  int64_t heads_ = 0;
};

/// What queries look at.
struct AttentionKeys {
  Tensor content;    // [N, K, C]
  Tensor positions;  // [N, K, C]
  Tensor mask;       // u8 [N, 1, K]: 1 where a key is not seen; or undefined
};

/// Of queries to keys; in each head the position's part stands beside the content's, so that a
/// score is the sum of two products, of content and of position. Parameters: as above, and
/// <name>.qpos_sine_proj.{weight, bias}; <name>.qpos_proj.* only in a first layer.
class ConditionalCrossAttention {
 public:
  ConditionalCrossAttention() = default;
  /// @param first the layer also adds positions to the contents of queries and keys
  ConditionalCrossAttention(const Scope& scope, const std::string& name, int64_t channels,
                            int64_t heads, bool first);

  /// @param x         [N, Q, C]
  /// @param positions [N, Q, C], used by a first layer alone
  /// @param encoding  [N, Q, C] of the place that a query looks for
  /// @return          [N, Q, C], without its residual
  Tensor operator()(const Tensor& x, const Tensor& positions, const Tensor& encoding,
                    const AttentionKeys& keys) const;

 private:
  Tensor beside(const Tensor& content, const Tensor& position) const;

  Linear q_content_, q_position_, q_encoding_, k_content_, k_position_, v_, out_;
  int64_t heads_ = 0;
  bool first_ = false;
};

}  // namespace mixpl
