#include "optim/adamw.h"

#include <cmath>

#include "optim/optimizer.h"

namespace mixpl {
namespace {

class AdamW final : public Optimizer {
 public:
  AdamW(std::vector<OptimizerTarget> targets, AdamWOptions options)
      : Optimizer(std::move(targets), 2),
        options_(options),
        factors_{static_cast<float>(options.beta1), static_cast<float>(options.beta2),
                 static_cast<float>(1 - options.beta1), static_cast<float>(1 - options.beta2),
                 static_cast<float>(options.eps)},
        steps_(counters()) {}

  std::vector<std::pair<std::string, Tensor>> state() override {
    std::vector<std::pair<std::string, Tensor>> out{{"optimizer.steps", steps_}};
    for (size_t i = 0; i < targets_.size(); ++i) {
      out.emplace_back("optimizer.first." + targets_[i].name, moments_[0][i]);
      out.emplace_back("optimizer.second." + targets_[i].name, moments_[1][i]);
    }
    return out;
  }

 private:
  void update(double lr) override {
    rates_.values.clear();
    for (size_t i = 0; i < targets_.size(); ++i) rates_.values.push_back(rates_of(i, lr));
    MIXPL_DISPATCH(clip_.device(), adamw_update, table_, rates_, factors_, clip_);
  }

  void count_step(size_t target) override { steps_.data<float>()[target] += 1; }

  // How large the next step of target i is.
  AdamWRates rates_of(size_t i, double lr) const {
    if (!has_gradient(i)) return {};
    const double t = steps_.data<float>()[i] + 1;
    const double rate = lr * targets_[i].lr_factor;
    const double correction1 = 1 - std::pow(options_.beta1, t);
    const double correction2 = 1 - std::pow(options_.beta2, t);
    return {static_cast<float>(1 - rate * targets_[i].weight_decay),
            static_cast<float>(rate / correction1), static_cast<float>(1 / std::sqrt(correction2))};
  }

  AdamWOptions options_;
  AdamWFactors factors_;
  Mirrored<AdamWRates> rates_;
  Tensor steps_;  // counts exactly up to 2^24
};

}  // namespace

std::unique_ptr<Optimizer> make_adamw(std::vector<OptimizerTarget> targets, AdamWOptions options) {
  return std::make_unique<AdamW>(std::move(targets), options);
}

}  // namespace mixpl
