#include "optim/optimizer.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "ops/registry.h"
#include "optim/flat_chunks.h"

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

double gradient_norm(const std::vector<Tensor>& gradients) {
  const Check check("gradientNorm");
  for (const Tensor& gradient : gradients) check.dtype("gradient", gradient, DType::f32);
  std::vector<double> partial(chunk_count(gradients), 0.0);
  for_each_chunk(gradients, [&](const FlatChunk& c) {
    const float* g = gradients[c.tensor].data<float>();
    // Sixteen lanes; lanes and chunks are added in a fixed order.
    double lanes[16] = {};
    int64_t k = c.begin;
    for (; k + 16 <= c.end; k += 16)
      for (int l = 0; l < 16; ++l) {
        const double value = g[k + l];
        lanes[l] += value * value;
      }
    double sum = 0;
    for (; k < c.end; ++k) sum += double(g[k]) * g[k];
    for (double lane : lanes) sum += lane;
    partial[c.index] = sum;
  });
  double sum = 0;
  for (double p : partial) sum += p;
  return std::sqrt(sum);
}

float clip_scale(double norm, double clip_norm) {
  return clip_norm > 0 ? static_cast<float>(std::min(1.0, clip_norm / (norm + 1e-6))) : 1.0f;
}

namespace {

// Inputs: n weights, then n gradients [steps, ...weight]; { optimizer: as create_optimizer, lr,
// lrFactors, weightDecays }. Outputs: the n weights after `steps` clipped steps, then the state.
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
  std::vector<OptimizerTarget> targets;
  for (size_t i = 0; i < n; ++i) {
    check.dtype("weights", in[i], DType::f32);
    check.dtype("gradients", in[n + i], DType::f32);
    std::vector<int64_t> sizes = in[i].shape().sizes();
    sizes.insert(sizes.begin(), in[n].rank() ? in[n].size(0) : 0);
    check.shape("gradients", in[n + i], Shape(sizes), "steps, then the weight's axes");
    targets.push_back(
        {str(i), in[i].clone(), static_cast<float>(factors[i]), static_cast<float>(decays[i])});
  }
  const std::unique_ptr<Optimizer> optimizer = create_optimizer(o.object("optimizer"), targets);
  for (int64_t step = 0; step < in[n].size(0); ++step) {
    std::vector<Tensor> gradients;
    for (size_t i = 0; i < n; ++i) {
      Tensor gradient = Tensor::empty(in[i].shape(), DType::f32);
      std::copy_n(in[n + i].data<float>() + step * gradient.numel(), gradient.numel(),
                  gradient.data<float>());
      targets[i].value.set_grad(gradient);
      gradients.push_back(gradient);
    }
    optimizer->step(lr, clip_scale(gradient_norm(gradients), optimizer->clip_norm));
  }
  std::vector<Tensor> out;
  for (auto& target : targets) {
    target.value.set_grad(Tensor());
    out.push_back(target.value);
  }
  for (const auto& [name, tensor] : optimizer->state()) out.push_back(tensor);
  return out;
}

// gradientNorm: any gradients -> f32 [].
const bool registered =
    register_op("optimizerSteps", optimizer_steps) &&
    register_op("gradientNorm", [](const std::vector<Tensor>& in, const Options&) {
      return std::vector<Tensor>{
          Tensor::full({}, static_cast<float>(gradient_norm(in)), DType::f32)};
    });

}  // namespace

}  // namespace mixpl
