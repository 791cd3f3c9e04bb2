// Multi-scale deformable attention with its projections.
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <vector>

#include "core/error.h"
#include "nn/linear.h"
#include "ops/deformable_attention/deformable_attention.h"
#include "ops/tokens/tokens.h"

namespace mixpl {

struct DeformableAttentionSpec {
  int64_t channels = 256, heads = 8, levels = 4, points = 4;  // heads divide the channels
};

namespace init {
/// Offsets [M L P 2] at first: head k looks in the direction 2 pi k / M, its longer side 1, and
/// point p goes p + 1 such steps. @source mmcv, MultiScaleDeformableAttention.init_weights
inline Init deformable_offsets(const DeformableAttentionSpec& spec) {
  return [=](Tensor& t, const Philox&) {
    float* to = t.data<float>();
    for (int64_t head = 0; head < spec.heads; ++head) {
      const double angle =
          2 * std::numbers::pi * static_cast<double>(head) / static_cast<double>(spec.heads);
      const double x = std::cos(angle), y = std::sin(angle);
      const double longer = std::max(std::abs(x), std::abs(y));
      for (int64_t level = 0; level < spec.levels; ++level)
        for (int64_t point = 1; point <= spec.points; ++point) {
          *to++ = static_cast<float>(x / longer * static_cast<double>(point));
          *to++ = static_cast<float>(y / longer * static_cast<double>(point));
        }
    }
  };
}
}  // namespace init

/// Parameters, as in mmdetection: sampling_offsets.{weight, bias}, attention_weights.{weight,
/// bias}, value_proj.{weight, bias}, output_proj.{weight, bias}.
class DeformableAttention {
 public:
  DeformableAttention() = default;
  /// @throws ConfigError when the heads do not divide the channels
  DeformableAttention(const Scope& scope, const DeformableAttentionSpec& spec) : spec_(spec) {
    if (spec.heads < 1 || spec.channels % spec.heads != 0)
      throw ConfigError(str("deformable attention: channels must be a multiple of ", spec.heads,
                            " (heads), got ", spec.channels));
    const int64_t samples = spec.heads * spec.levels * spec.points;
    const Scope at = scope.child("sampling_offsets");
    offsets_weight_ = at.weight("weight", {samples * 2, spec.channels}, init::constant(0));
    offsets_bias_ = at.weight("bias", {samples * 2}, init::deformable_offsets(spec));
    logits_ = Linear(scope, "attention_weights", spec.channels, samples, init::constant(0));
    value_ = Linear(scope, "value_proj", spec.channels, spec.channels, init::xavier_uniform());
    output_ = Linear(scope, "output_proj", spec.channels, spec.channels, init::xavier_uniform());
  }

  /// output_proj(deformable_attention(...)), without the residual.
  ///
  /// @param query      [N, Q, C], position added
  /// @param tokens     [N, S, C], maps row by row, level after level
  /// @param padding    u8 [N, S], not 0 where a token is padding, which then counts as 0; or
  /// undefined
  /// @param maps       sizes of the levels
  /// @param references f32 [N, Q, 2 | 4]
  /// @param ratios     f32 [N, L, 2]; both as in ops/deformable_attention
  /// @throws           ShapeError, DTypeError, DeviceError
  Tensor operator()(const Tensor& query, const Tensor& tokens, const Tensor& padding,
                    const std::vector<MapSize>& maps, const Tensor& references,
                    const Tensor& ratios) const {
    // Else the op would take the numbers for another count of points.
    if (static_cast<int64_t>(maps.size()) != spec_.levels)
      throw ShapeError(str("deformable attention: maps must be ", spec_.levels,
                           " (levels of the module), got ", maps.size()));
    const Tensor value = mask_tokens(value_(tokens), padding);
    const Tensor offsets = linear(query, offsets_weight_, offsets_bias_);
    return output_(deformable_attention(value, maps, offsets, logits_(query), references, ratios,
                                        spec_.heads));
  }

 private:
  DeformableAttentionSpec spec_;
  Tensor offsets_weight_, offsets_bias_;
  Linear logits_, value_, output_;
};

}  // namespace mixpl
