#include "optim/flat_chunks.h"
#include "optim/optimizer.h"

namespace mixpl {
namespace {

class Sgd final : public Optimizer {
 public:
  Sgd(std::vector<OptimizerTarget> targets, SgdOptions options)
      : targets_(std::move(targets)), options_(options) {
    for (const auto& t : targets_) {
      values_.push_back(t.value);
      if (options_.momentum != 0) velocity_.push_back(Tensor::zeros(t.value.shape(), DType::f32));
    }
    if (options_.dampening != 0)
      started_ = Tensor::zeros({static_cast<int64_t>(targets_.size())}, DType::f32);
  }

  void step(double lr, float scale) override {
    const float m = static_cast<float>(options_.momentum);
    for_each_chunk(values_, [&](const FlatChunk& c) {
      const OptimizerTarget& target = targets_[c.tensor];
      const Tensor grad = target.value.grad();
      if (!grad.defined()) return;
      float* __restrict w = target.value.data<float>();
      const float* __restrict g = grad.data<float>();
      const float rate = static_cast<float>(lr * target.lr_factor), wd = target.weight_decay;
      if (m == 0) {
        for (int64_t k = c.begin; k < c.end; ++k) w[k] -= rate * (scale * g[k] + wd * w[k]);
        return;
      }
      float* __restrict v = velocity_[c.tensor].data<float>();
      const float fresh = fresh_share(c.tensor);
      if (options_.nesterov) {
        for (int64_t k = c.begin; k < c.end; ++k) {
          const float d = scale * g[k] + wd * w[k];
          v[k] = m * v[k] + d;
          w[k] -= rate * (d + m * v[k]);
        }
      } else if (fresh == 1) {
        for (int64_t k = c.begin; k < c.end; ++k) {
          v[k] = m * v[k] + (scale * g[k] + wd * w[k]);
          w[k] -= rate * v[k];
        }
      } else {
        for (int64_t k = c.begin; k < c.end; ++k) {
          v[k] = m * v[k] + fresh * (scale * g[k] + wd * w[k]);
          w[k] -= rate * v[k];
        }
      }
    });
    for (size_t i = 0; i < targets_.size(); ++i) {
      if (!targets_[i].value.grad().defined()) continue;
      targets_[i].value.touch();
      if (started_.defined()) started_.data<float>()[i] = 1;
    }
  }

  std::vector<std::pair<std::string, Tensor>> state() override {
    std::vector<std::pair<std::string, Tensor>> out;
    if (started_.defined()) out.emplace_back("optimizer.started", started_);
    for (size_t i = 0; i < velocity_.size(); ++i)
      out.emplace_back("optimizer.momentum." + targets_[i].name, velocity_[i]);
    return out;
  }

 private:
  // What a gradient adds to the velocity. The first one is not dampened; without dampening the
  // first step, from a velocity of zero, is as any other.
  float fresh_share(size_t i) const {
    if (!started_.defined() || started_.data<float>()[i] == 0) return 1;
    return static_cast<float>(1 - options_.dampening);
  }

  std::vector<OptimizerTarget> targets_;
  SgdOptions options_;
  std::vector<Tensor> values_, velocity_;
  Tensor started_;  // f32 [targets], 1 after a target's first step
};

}  // namespace

std::unique_ptr<Optimizer> make_sgd(std::vector<OptimizerTarget> targets, SgdOptions options) {
  return std::make_unique<Sgd>(std::move(targets), options);
}

}  // namespace mixpl
