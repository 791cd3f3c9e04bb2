#include <cmath>

#include "optim/flat_chunks.h"
#include "optim/optimizer.h"

namespace mixpl {
namespace {

class AdamW final : public Optimizer {
 public:
  AdamW(std::vector<OptimizerTarget> targets, AdamWOptions options)
      : targets_(std::move(targets)), options_(options) {
    for (const auto& t : targets_) {
      values_.push_back(t.value);
      first_.push_back(Tensor::zeros(t.value.shape(), DType::f32));
      second_.push_back(Tensor::zeros(t.value.shape(), DType::f32));
    }
    steps_ = Tensor::zeros({static_cast<int64_t>(targets_.size())}, DType::f32);
  }

  void step(double lr, float scale) override {
    std::vector<Rates> rates;
    for (size_t i = 0; i < targets_.size(); ++i) rates.push_back(rates_of(i, lr));
    const float b1 = static_cast<float>(options_.beta1), b2 = static_cast<float>(options_.beta2);
    const float c1 = static_cast<float>(1 - options_.beta1);
    const float c2 = static_cast<float>(1 - options_.beta2);
    const float eps = static_cast<float>(options_.eps);
    for_each_chunk(values_, [&](const FlatChunk& c) {
      const Tensor grad = targets_[c.tensor].value.grad();
      if (!grad.defined()) return;
      float* __restrict w = values_[c.tensor].data<float>();
      float* __restrict m = first_[c.tensor].data<float>();
      float* __restrict v = second_[c.tensor].data<float>();
      const float* __restrict g = grad.data<float>();
      const Rates r = rates[c.tensor];
      for (int64_t k = c.begin; k < c.end; ++k) {
        const float d = scale * g[k];
        m[k] = b1 * m[k] + c1 * d;
        v[k] = b2 * v[k] + c2 * d * d;
        w[k] = w[k] * r.keep - r.step_size * m[k] / (__builtin_sqrtf(v[k]) * r.root + eps);
      }
    });
    for (auto& target : targets_)
      if (target.value.grad().defined()) target.value.touch();
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
  struct Rates {
    float keep, step_size, root;
  };
  // Counts a step of target i, if it has a gradient, and says how large it is.
  Rates rates_of(size_t i, double lr) {
    if (!targets_[i].value.grad().defined()) return {};
    const double t = steps_.data<float>()[i] += 1;
    const double rate = lr * targets_[i].lr_factor;
    const double correction1 = 1 - std::pow(options_.beta1, t);
    const double correction2 = 1 - std::pow(options_.beta2, t);
    return {static_cast<float>(1 - rate * targets_[i].weight_decay),
            static_cast<float>(rate / correction1), static_cast<float>(1 / std::sqrt(correction2))};
  }

  std::vector<OptimizerTarget> targets_;
  AdamWOptions options_;
  std::vector<Tensor> values_, first_, second_;
  Tensor steps_;  // f32 [targets]: counts exactly up to 2^24
};

}  // namespace

std::unique_ptr<Optimizer> make_adamw(std::vector<OptimizerTarget> targets, AdamWOptions options) {
  return std::make_unique<AdamW>(std::move(targets), options);
}

}  // namespace mixpl
