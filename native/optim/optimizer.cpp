#include "optim/optimizer.h"

#include "core/check.h"
#include "core/tensor_values.h"
#include "ops/registry.h"
#include "optim/parameter_groups.h"

namespace mixpl {
namespace {

void in_range(const char* name, double value, double low, double high) {
  if (!(value >= low && value <= high))
    throw ConfigError(str("optimizer.", name, " must be in [", low, ", ", high, "], got ", value));
}

}  // namespace

std::unique_ptr<Optimizer> create_optimizer(const Options& options,
                                            std::vector<OptimizerTarget> targets) {
  for (const auto& target : targets) {
    const std::string name = "target " + target.name;
    Check("optimizer").dtype(name.c_str(), target.value, DType::f32);
    Check("optimizer").same_device(name.c_str(), target.value, targets[0].value);
  }
  const std::string type = options.text("type", "sgd");
  const double clip_norm = options.number("clipNorm", 0);
  in_range("clipNorm", clip_norm, 0, 1e30);
  std::unique_ptr<Optimizer> out;
  if (type == "sgd") {
    SgdOptions sgd;
    sgd.momentum = options.number("momentum", sgd.momentum);
    sgd.dampening = options.number("dampening", sgd.dampening);
    sgd.nesterov = options.boolean("nesterov", sgd.nesterov);
    in_range("momentum", sgd.momentum, 0, 1);
    in_range("dampening", sgd.dampening, 0, 1);
    if (sgd.nesterov && (sgd.momentum == 0 || sgd.dampening != 0))
      throw ConfigError("optimizer.nesterov must come with a momentum > 0 and without dampening");
    out = make_sgd(std::move(targets), sgd);
  } else if (type == "adamw") {
    AdamWOptions adamw;
    const std::vector<double> betas = options.numbers("betas", {adamw.beta1, adamw.beta2});
    if (betas.size() != 2)
      throw ConfigError(str("optimizer.betas must hold two numbers, got ", betas.size()));
    for (double b : betas) in_range("betas", b, 0, 0.999999999);
    adamw.beta1 = betas[0];
    adamw.beta2 = betas[1];
    adamw.eps = options.number("eps", adamw.eps);
    in_range("eps", adamw.eps, 0, 1);
    out = make_adamw(std::move(targets), adamw);
  } else {
    throw ConfigError(str("optimizer.type must be 'sgd' or 'adamw', got '", type, "'"));
  }
  options.finish();
  out->clip_norm = clip_norm;
  return out;
}

Optimizer::Optimizer(std::vector<OptimizerTarget> targets, int moments)
    : targets_(std::move(targets)) {
  const Device device = targets_.empty() ? Device::cpu() : targets_[0].value.device();
  for (const OptimizerTarget& target : targets_)
    for (int k = 0; k < moments; ++k)
      moments_[k].push_back(Tensor::zeros(target.value.shape(), DType::f32, device));
  clip_ = Clip::empty(device);
}

StepReport Optimizer::step(double lr, const std::vector<Tensor>& losses,
                           const std::function<void(const Tensor& clip)>& follow) {
  std::vector<UpdateRow> rows;
  for (size_t i = 0; i < targets_.size(); ++i) {
    const Tensor& value = targets_[i].value;
    const Tensor gradient = value.grad();
    rows.push_back({value.data<float>(), gradient.defined() ? gradient.data<float>() : nullptr,
                    moments_[0].empty() ? nullptr : moments_[0][i].data<float>(),
                    moments_[1].empty() ? nullptr : moments_[1][i].data<float>(), value.numel()});
  }
  table_.assign(std::move(rows));
  const auto num_losses = static_cast<int64_t>(losses.size());
  if (clip_.numel() != Clip::kFloats + num_losses) clip_ = Clip::empty(clip_.device(), num_losses);
  gather_scalars(losses, clip_, Clip::kFloats);
  MIXPL_DISPATCH(clip_.device(), clip_gradients, table_, clip_norm, clip_);
  update(lr);
  // Before anything else can fail: what was derived from a weight must not outlive its values.
  for (size_t i = 0; i < targets_.size(); ++i)
    if (has_gradient(i)) targets_[i].value.touch();
  if (follow) follow(clip_);
  // A GPU has all its work by now; only the host waits.
  const std::vector<float> numbers = clip_.to_vector<float>();
  Clip clip;
  std::memcpy(&clip, numbers.data(), sizeof clip);
  for (size_t i = 0; clip.usable() && i < targets_.size(); ++i)
    if (has_gradient(i)) count_step(i);
  return {clip.norm, {numbers.begin() + Clip::kFloats, numbers.end()}, clip.usable()};
}

namespace {

// Inputs: n weights, then n gradients [steps, ...weight]; { optimizer: as create_optimizer, lr,
// lrFactors, weightDecays }, or { optimizer: with what ParameterGroups reads, lr, paths, norms: 1
// of a normalisation's }. Outputs: the n weights after `steps` clipped steps, then the state.
std::vector<Tensor> optimizer_steps(const std::vector<Tensor>& in, const Options& o) {
  const Check check("optimizerSteps");
  const size_t n = in.size() / 2;
  if (in.empty() || in.size() % 2 != 0)
    throw ShapeError(
        str("optimizerSteps: needs weights and as many gradients, got ", in.size(), " tensors"));
  const double lr = o.number("lr", 0.01);
  check.at_least("lr", lr, 0);
  const std::vector<double> factors = o.numbers("lrFactors", std::vector<double>(n, 1.0));
  const std::vector<double> decays = o.numbers("weightDecays", std::vector<double>(n, 0.0));
  if (factors.size() != n || decays.size() != n)
    throw ShapeError(str("optimizerSteps: lrFactors and weightDecays must hold ", n,
                         " numbers each, got ", factors.size(), " and ", decays.size()));
  const std::vector<std::string> paths = o.texts("paths");
  const std::vector<double> norms = o.numbers("norms", std::vector<double>(n, 0.0));
  if ((!paths.empty() && paths.size() != n) || norms.size() != n)
    throw ShapeError(str("optimizerSteps: paths and norms must hold ", n, " entries each, got ",
                         paths.size(), " and ", norms.size()));
  const Options options = o.object("optimizer");
  std::optional<ParameterGroups> groups;
  if (!paths.empty()) groups.emplace(options).check_matches(paths);
  std::vector<OptimizerTarget> targets;
  for (size_t i = 0; i < n; ++i) {
    check.dtype("weights", in[i], DType::f32);
    check.dtype("gradients", in[n + i], DType::f32);
    std::vector<int64_t> sizes = in[i].shape().sizes();
    sizes.insert(sizes.begin(), in[n].rank() ? in[n].size(0) : 0);
    check.shape("gradients", in[n + i], Shape(sizes), "steps, then the weight's axes");
    targets.push_back(groups
                          ? groups->target(paths[i], in[i].clone(), norms[i] != 0)
                          : OptimizerTarget{str(i), in[i].clone(), static_cast<float>(factors[i]),
                                            static_cast<float>(decays[i])});
  }
  const std::unique_ptr<Optimizer> optimizer = create_optimizer(options, targets);
  std::vector<std::vector<float>> gradients;
  for (size_t i = 0; i < n; ++i) gradients.push_back(in[n + i].to_vector<float>());
  for (int64_t step = 0; step < in[n].size(0); ++step) {
    for (size_t i = 0; i < n; ++i) {
      const auto begin = gradients[i].begin() + step * in[i].numel();
      targets[i].value.set_grad(Tensor::from(std::vector<float>(begin, begin + in[i].numel()),
                                             in[i].shape(), in[i].device()));
    }
    optimizer->step(lr);
  }
  std::vector<Tensor> out;
  for (auto& target : targets) {
    target.value.set_grad(Tensor());
    out.push_back(target.value);
  }
  for (const auto& [name, tensor] : optimizer->state()) out.push_back(tensor);
  return out;
}

const bool registered = register_op("optimizerSteps", optimizer_steps);

}  // namespace

}  // namespace mixpl
