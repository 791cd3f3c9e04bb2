#include "optim/sgd.h"

#include "optim/optimizer.h"

namespace mixpl {
namespace {

class Sgd final : public Optimizer {
 public:
  Sgd(std::vector<OptimizerTarget> targets, SgdOptions options)
      : Optimizer(std::move(targets), options.momentum != 0 ? 1 : 0), options_(options) {
    if (options_.dampening != 0) started_ = counters();
  }

  std::vector<std::pair<std::string, Tensor>> state() override {
    std::vector<std::pair<std::string, Tensor>> out;
    if (started_.defined()) out.emplace_back("optimizer.started", started_);
    for (size_t i = 0; i < moments_[0].size(); ++i)
      out.emplace_back("optimizer.momentum." + targets_[i].name, moments_[0][i]);
    return out;
  }

 private:
  void update(double lr) override {
    factors_.values.clear();
    for (size_t i = 0; i < targets_.size(); ++i)
      factors_.values.push_back({static_cast<float>(lr * targets_[i].lr_factor),
                                 targets_[i].weight_decay, fresh_share(i)});
    const SgdKind kind = options_.momentum == 0 ? SgdKind::plain
                         : options_.nesterov    ? SgdKind::nesterov
                                                : SgdKind::momentum;
    MIXPL_DISPATCH(clip_.device(), sgd_update, table_, factors_, kind,
                   static_cast<float>(options_.momentum), clip_);
  }

  void count_step(size_t target) override {
    if (started_.defined()) started_.data<float>()[target] = 1;
  }

  // What a gradient adds to the velocity. The first one is not dampened; without dampening the
  // first step, from a velocity of zero, is as any other.
  float fresh_share(size_t i) const {
    if (!started_.defined() || started_.data<float>()[i] == 0) return 1;
    return static_cast<float>(1 - options_.dampening);
  }

  SgdOptions options_;
  Mirrored<SgdFactors> factors_;
  Tensor started_;  // 1 after a target's first step
};

}  // namespace

std::unique_ptr<Optimizer> make_sgd(std::vector<OptimizerTarget> targets, SgdOptions options) {
  return std::make_unique<Sgd>(std::move(targets), options);
}

}  // namespace mixpl
