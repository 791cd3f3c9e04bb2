// Convolution with what follows it: normalisation, residual and ReLU in one call.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "nn/parameters.h"
#include "ops/conv2d/conv2d.h"

namespace mixpl {

/// What normalises a convolution's output.
enum class NormKind : uint8_t {
  none,       // the convolution has a bias
  frozen_bn,  // running statistics, affine not trained: folded into the convolution
  bn_eval,    // running statistics, affine trained: folded, gradients go through the fold
  bn,         // batch statistics in training
  gn,         // GroupNorm
};
/// How mmdetection calls a module of this kind: "gn", else "bn".
const char* norm_name(NormKind kind);
/// Parses "none", "frozen-bn", "bn-eval", "bn", "gn". @throws ConfigError
NormKind parse_norm(const std::string& text);

struct ConvSpec {
  int64_t in = 0, out = 0;
  int kernel = 3, stride = 1;
  NormKind norm = NormKind::none;
  int gn_groups = 32;  // capped so that a group holds whole channels
  bool relu = false;
  bool conv_bias = false;  // a bias in spite of a norm (FCOS)
  float norm_eps = 1e-5f;  // of any norm
  // bn of a frozen layer: running statistics, which stay (mmdetection); false: the batch's
  bool freeze_statistics = true;
  Init init;       // of the weight; zero bias, unit scale
  float bias = 0;  // initial bias, e.g. -ln(99) for a classifier
};

/// conv -> norm -> (+ residual) -> ReLU. Padding is kernel / 2.
/// Parameters: <conv>.weight OHWI, <conv>.bias, <norm>.{weight, bias, running_mean, running_var}.
class ConvNorm {
 public:
  ConvNorm() = default;
  ConvNorm(const Scope& scope, const std::string& conv, const std::string& norm,
           const ConvSpec& spec);

  /// x [N, H, W, C] -> [N, P, Q, K]; residual has the output's shape
  /// @param owners of x's rows, where some hold nothing: see batch_norm
  Tensor operator()(const Tensor& x, const Tensor& residual = {}, const Tensor& owners = {}) const;
  /// Several maps, such as the levels of a pyramid: convolved in one launch on a GPU.
  /// @param residuals one per map, or none
  std::vector<Tensor> operator()(const std::vector<Tensor>& xs,
                                 const std::vector<Tensor>& residuals = {}) const;

 private:
  /// What the convolution itself takes; `normalised` says whether a norm of its own follows.
  struct Filters {
    Tensor weight, bias;
    Conv2dOptions options;
    bool normalised;
  };
  Filters filters() const;
  /// The filters with the norm's scale in them, and their bias.
  std::pair<Tensor, Tensor> folded(const Conv2dOptions& options) const;
  Tensor normalise(const Tensor& y, const Tensor& residual, const Tensor& owners) const;

  ConvSpec spec_;
  bool frozen_ = false;
  Tensor weight_, bias_;
  Tensor gamma_, beta_;
  mutable Tensor mean_, variance_;
  // What folded() gave last, with what convolutions derive from it; null without a norm to fold.
  // Kept at once on a GPU, where refresh_filters() makes it again behind an update, and for the
  // backward pass, which holds it anyway, so that all passes of a step share it; else from the
  // second time on that nothing it is made of has changed: on the CPU a teacher, which changes
  // after each prediction, keeps nothing while its student trains.
  std::shared_ptr<FoldedFilters> folded_;
};

}  // namespace mixpl
