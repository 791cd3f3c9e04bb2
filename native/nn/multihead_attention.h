// Multi-head attention with its projections.
#pragma once

#include <string>

#include "nn/parameters.h"

namespace mixpl {

/// Says at once, where parameters lie on a GPU, what its kernels would refuse in the first pass:
/// heads of more than 128 columns. @throws ConfigError
void check_head_width(int64_t columns);

/// The parameters of torch.nn.MultiheadAttention, E columns in and out.
struct AttentionProjections {
  Tensor in_weight;   // [3 E, E]: rows of q, of k, of v
  Tensor in_bias;     // [3 E]
  Tensor out_weight;  // [E, E]
  Tensor out_bias;    // [E]
};

/// Projected, attended head by head and projected again. What is the same tensor goes through one
/// product: query, key and value, or query and key.
///
/// @param query f32|bf16 [N, Q, E]
/// @param key   query's dtype [N, K, E]
/// @param value query's dtype [N, K, E]
/// @param mask  of keys that are not seen, as attention takes it; or undefined
/// @return      [N, Q, E] in query's dtype
/// @grad        query, key, value, the projections
/// @throws      ShapeError, DTypeError, DeviceError, RangeError
/// @source      torch.nn.MultiheadAttention, batch first, without dropout of probabilities
Tensor multihead_attention(const Tensor& query, const Tensor& key, const Tensor& value,
                           const AttentionProjections& projections, int64_t heads,
                           const Tensor& mask = {});

/// Parameters, by mmdetection's names: <name>.attn.in_proj_weight, <name>.attn.in_proj_bias,
/// <name>.attn.out_proj.weight, <name>.attn.out_proj.bias. Residual, norm and positions are the
/// caller's.
class MultiheadAttention {
 public:
  MultiheadAttention() = default;
  /// @param out how out_proj.weight is first filled; as torch does, or as the network wants it
  MultiheadAttention(const Scope& scope, const std::string& name, int64_t columns, int64_t heads,
                     const Init& out = init::uniform_fan_in());

  Tensor operator()(const Tensor& query, const Tensor& key, const Tensor& value,
                    const Tensor& mask = {}) const {
    return multihead_attention(query, key, value, projections_, heads_, mask);
  }

 private:
  AttentionProjections projections_;
  int64_t heads_ = 0;
};

}  // namespace mixpl
