#include "optim/optimizer.h"

#include <cmath>

#include "core/parallel.h"
#include "ops/registry.h"
#include "optim/flat_chunks.h"

namespace mixpl {
namespace {

// SGD with momentum as PyTorch's: v = m v + (g + wd w), w -= lr v; the first step sets v = g + wd
// w.
class Sgd final : public Optimizer {
 public:
  Sgd(std::vector<OptimizerTarget> targets, float momentum)
      : targets_(std::move(targets)), momentum_(momentum) {
    for (const auto& t : targets_) velocity_.push_back(Tensor::zeros(t.value.shape(), DType::f32));
  }

  void step(double lr, float scale) override {
    // With zero velocity the first step is the same as any other.
    for_each_chunk(values(targets_), [&](size_t i, int64_t begin, int64_t end) {
      const OptimizerTarget& t = targets_[i];
      const Tensor grad = t.value.grad();
      if (!grad.defined()) return;
      float *w = t.value.data<float>(), *v = velocity_[i].data<float>();
      const float* g = grad.data<float>();
      const float rate = static_cast<float>(lr * t.lr_factor), m = momentum_, wd = t.weight_decay;
      for (int64_t k = begin; k < end; ++k) {
        v[k] = m * v[k] + (scale * g[k] + wd * w[k]);
        w[k] -= rate * v[k];
      }
    });
    for (auto& t : targets_) t.value.touch();
  }

  std::vector<std::pair<std::string, Tensor>> state() override {
    std::vector<std::pair<std::string, Tensor>> out;
    for (size_t i = 0; i < targets_.size(); ++i)
      out.emplace_back("optimizer.momentum." + targets_[i].name, velocity_[i]);
    return out;
  }

 private:
  std::vector<OptimizerTarget> targets_;
  float momentum_;
  std::vector<Tensor> velocity_;
};

// AdamW (Loshchilov and Hutter 2019) as PyTorch's: decay lr wd w first, then the Adam step.
class AdamW final : public Optimizer {
 public:
  AdamW(std::vector<OptimizerTarget> targets, double beta1, double beta2, double eps)
      : targets_(std::move(targets)), beta1_(beta1), beta2_(beta2), eps_(eps) {
    for (const auto& t : targets_) {
      first_.push_back(Tensor::zeros(t.value.shape(), DType::f32));
      second_.push_back(Tensor::zeros(t.value.shape(), DType::f32));
    }
    // f32 counts exactly up to 2^24 steps.
    steps_ = Tensor::zeros({}, DType::f32);
  }

  void step(double lr, float scale) override {
    const double t = *steps_.data<float>() += 1;
    const double correction1 = 1 - std::pow(beta1_, t), correction2 = 1 - std::pow(beta2_, t);
    for_each_chunk(values(targets_), [&](size_t i, int64_t begin, int64_t end) {
      const OptimizerTarget& target = targets_[i];
      const Tensor grad = target.value.grad();
      if (!grad.defined()) return;
      float *w = target.value.data<float>(), *m = first_[i].data<float>(),
            *v = second_[i].data<float>();
      const float* g = grad.data<float>();
      const double rate = lr * target.lr_factor;
      const float keep = static_cast<float>(1 - rate * target.weight_decay);
      const float step_size = static_cast<float>(rate / correction1);
      const float root = static_cast<float>(1 / std::sqrt(correction2));
      const float b1 = static_cast<float>(beta1_), b2 = static_cast<float>(beta2_);
      const float c1 = static_cast<float>(1 - beta1_), c2 = static_cast<float>(1 - beta2_);
      const float eps = static_cast<float>(eps_);
      for (int64_t k = begin; k < end; ++k) {
        const float d = scale * g[k];
        m[k] = b1 * m[k] + c1 * d;
        v[k] = b2 * v[k] + c2 * d * d;
        w[k] = w[k] * keep - step_size * m[k] / (__builtin_sqrtf(v[k]) * root + eps);
      }
    });
    for (auto& target : targets_) target.value.touch();
  }

  std::vector<std::pair<std::string, Tensor>> state() override {
    std::vector<std::pair<std::string, Tensor>> out{{"optimizer.steps", steps_}};
    for (size_t i = 0; i < targets_.size(); ++i) {
      out.emplace_back("optimizer.first." + targets_[i].name, first_[i]);
      out.emplace_back("optimizer.second." + targets_[i].name, second_[i]);
    }
    return out;
  }

 private:
  std::vector<OptimizerTarget> targets_;
  double beta1_, beta2_, eps_;
  std::vector<Tensor> first_, second_;
  Tensor steps_;
};

void in_range(const char* name, double value, double low, double high) {
  if (!(value >= low && value <= high))
    throw ConfigError(str("optimizer.", name, " must be in [", low, ", ", high, "], got ", value));
}

}  // namespace

std::unique_ptr<Optimizer> create_optimizer(const Options& options,
                                            std::vector<OptimizerTarget> targets) {
  const std::string type = options.text("type", "sgd");
  const double momentum = options.number("momentum", 0.9);
  const std::vector<double> betas = options.numbers("betas", {0.9, 0.999});
  const double eps = options.number("eps", 1e-8);
  const double clip_norm = options.number("clipNorm", 0);
  options.finish();
  in_range("momentum", momentum, 0, 1);
  in_range("clipNorm", clip_norm, 0, 1e30);
  in_range("eps", eps, 0, 1);
  if (betas.size() != 2) throw ConfigError("optimizer.betas must hold two numbers");
  for (double b : betas) in_range("betas", b, 0, 0.999999999);
  std::unique_ptr<Optimizer> out;
  if (type == "sgd")
    out = std::make_unique<Sgd>(std::move(targets), static_cast<float>(momentum));
  else if (type == "adamw")
    out = std::make_unique<AdamW>(std::move(targets), betas[0], betas[1], eps);
  else
    throw ConfigError(str("optimizer.type must be 'sgd' or 'adamw', got '", type, "'"));
  out->clip_norm = clip_norm;
  return out;
}

double gradient_norm(const std::vector<Tensor>& gradients) {
  std::vector<double> partial(chunk_count(gradients), 0.0);
  for_each_chunk(gradients, [&](size_t i, int64_t begin, int64_t end, size_t chunk) {
    const float* g = gradients[i].data<float>();
    // Sixteen lanes of a few thousand values each; lanes and chunks are added in a fixed order.
    float lanes[16] = {};
    int64_t k = begin;
    for (; k + 16 <= end; k += 16)
      for (int l = 0; l < 16; ++l) lanes[l] += g[k + l] * g[k + l];
    double sum = 0;
    for (; k < end; ++k) sum += double(g[k]) * g[k];
    for (float lane : lanes) sum += lane;
    partial[chunk] = sum;
  });
  double sum = 0;
  for (double p : partial) sum += p;
  return std::sqrt(sum);
}

void ema_update(const std::vector<Tensor>& teacher, const std::vector<Tensor>& student,
                double momentum) {
  if (teacher.size() != student.size())
    throw ShapeError(
        str("ema: student must hold ", teacher.size(), " tensors, got ", student.size()));
  for (size_t i = 0; i < teacher.size(); ++i)
    if (teacher[i].shape() != student[i].shape())
      throw ShapeError(str("ema: student's tensor ", i, " must be ", teacher[i].shape(), ", got ",
                           student[i].shape()));
  if (!(momentum >= 0 && momentum <= 1))
    throw RangeError(str("ema: momentum must be in [0, 1], got ", momentum));
  const float a = static_cast<float>(momentum), b = static_cast<float>(1 - momentum);
  for_each_chunk(teacher, [&](size_t i, int64_t begin, int64_t end) {
    float* t = teacher[i].data<float>();
    const float* s = student[i].data<float>();
    if (momentum == 1)
      std::copy(s + begin, s + end, t + begin);
    else
      for (int64_t k = begin; k < end; ++k) t[k] = b * t[k] + a * s[k];
  });
  for (Tensor t : teacher) t.touch();
}

namespace {
// Inputs: teacher, student; { momentum }. Output: the teacher after the update.
const bool registered = register_op("ema", [](const std::vector<Tensor>& in, const Options& o) {
  if (in.size() != 2) throw ShapeError(str("ema: needs 2 tensors, got ", in.size()));
  const Tensor out = in[0].clone();
  ema_update({out}, {in[1]}, o.number("momentum", 2e-4));
  return std::vector<Tensor>{out};
});
}  // namespace

}  // namespace mixpl
