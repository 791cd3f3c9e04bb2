#include "nn/conv.h"

#include <numeric>

#include "autograd/tape.h"
#include "core/context.h"
#include "ops/batch_norm/batch_norm.h"
#include "ops/fold_batch_norm/fold_batch_norm.h"
#include "ops/group_norm/group_norm.h"

namespace mixpl {

NormKind parse_norm(const std::string& text) {
  if (text == "none") return NormKind::none;
  if (text == "frozen-bn") return NormKind::frozen_bn;
  if (text == "bn-eval") return NormKind::bn_eval;
  if (text == "bn") return NormKind::bn;
  if (text == "gn") return NormKind::gn;
  throw ConfigError(
      str("norm must be 'none', 'frozen-bn', 'bn-eval', 'bn' or 'gn', got '", text, "'"));
}

const char* norm_name(NormKind kind) { return kind == NormKind::gn ? "gn" : "bn"; }

ConvNorm::ConvNorm(const Scope& scope, const std::string& conv, const std::string& norm,
                   const ConvSpec& spec)
    : spec_(spec), frozen_(scope.is_frozen()) {
  const Scope at_conv = scope.child(conv);
  weight_ = at_conv.weight("weight", {spec.out, spec.kernel, spec.kernel, spec.in}, spec.init);
  if (spec.norm == NormKind::none || spec.conv_bias)
    bias_ = at_conv.weight("bias", {spec.out}, init::constant(spec.bias));
  if (spec.norm == NormKind::none) return;
  const Scope at_norm = scope.child(norm).frozen(spec.norm == NormKind::frozen_bn);
  gamma_ = at_norm.weight("weight", {spec.out}, init::constant(1), true);
  beta_ = at_norm.weight("bias", {spec.out}, init::constant(0), true);
  if (spec.norm == NormKind::gn) {
    spec_.gn_groups = static_cast<int>(std::gcd(static_cast<int64_t>(spec.gn_groups), spec.out));
  } else {
    mean_ = at_norm.buffer("running_mean", {spec.out}, 0);
    variance_ = at_norm.buffer("running_var", {spec.out}, 1);
    folded_ = scope.fold({weight_, gamma_, beta_, mean_, variance_, spec_.norm_eps, {}, {}});
  }
}

ConvNorm::Filters ConvNorm::filters() const {
  Conv2dOptions options;
  options.stride = spec_.stride;
  options.padding = spec_.kernel / 2;
  const bool live = spec_.norm == NormKind::bn && Context::current().training &&
                    !(frozen_ && spec_.freeze_statistics);
  if (live || spec_.norm == NormKind::gn) return {weight_, bias_, options, true};
  options.relu = spec_.relu;
  if (spec_.norm == NormKind::none) return {weight_, bias_, options, false};
  const auto [weight, shift] = folded(options);
  return {weight, shift, options, false};
}

std::pair<Tensor, Tensor> ConvNorm::folded(const Conv2dOptions& options) const {
  FoldedFilters& kept = *folded_;
  const auto versions = kept.versions();
  const bool records = recording({weight_, gamma_, beta_});
  const bool known = kept.made_of == versions;
  if (!known) kept.values.reset();
  kept.made_of = versions;
  kept.used = true;
  std::optional<std::pair<Tensor, Tensor>> values = kept.values;
  if (!values) {
    Context context = Context::current();
    context.tape = nullptr;
    const ContextScope scope(context);
    const DType type = filter_type(weight_.device(), spec_.kernel, options, context.compute);
    values = fold_batch_norm(weight_, gamma_, beta_, mean_, variance_, spec_.norm_eps, type);
    if (weight_.device().is_cuda() || (known && !records)) kept.values = values;
  }
  // On the tape as if they had been computed now: a gradient goes through the fold of its own pass
  // right after the convolution left it, so passes that share the values do not meet in it.
  record_fold(*values, weight_, gamma_, beta_, mean_, variance_, spec_.norm_eps);
  return *values;
}

Tensor ConvNorm::normalise(const Tensor& y, const Tensor& residual, const Tensor& owners) const {
  if (spec_.norm == NormKind::gn) {
    GroupNormOptions norm;
    norm.groups = spec_.gn_groups;
    norm.eps = spec_.norm_eps;
    norm.relu = spec_.relu;
    return group_norm(y, gamma_, beta_, norm, residual);
  }
  BatchNormOptions norm;
  norm.relu = spec_.relu;
  norm.eps = spec_.norm_eps;
  return batch_norm(y, gamma_, beta_, mean_, variance_, norm, residual, owners);
}

Tensor ConvNorm::operator()(const Tensor& x, const Tensor& residual, const Tensor& owners) const {
  const Filters f = filters();
  if (!f.normalised) return conv2d(x, f.weight, f.bias, f.options, residual);
  return normalise(conv2d(x, f.weight, f.bias, f.options), residual, owners);
}

std::vector<Tensor> ConvNorm::operator()(const std::vector<Tensor>& xs,
                                         const std::vector<Tensor>& residuals) const {
  const Filters f = filters();
  if (!f.normalised) return conv2d(xs, f.weight, f.bias, f.options, residuals);
  std::vector<Tensor> ys = conv2d(xs, f.weight, f.bias, f.options);
  for (size_t i = 0; i < ys.size(); ++i)
    ys[i] = normalise(ys[i], residuals.empty() ? Tensor() : residuals[i], {});
  return ys;
}

}  // namespace mixpl
