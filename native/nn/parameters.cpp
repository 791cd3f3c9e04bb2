#include "nn/parameters.h"

#include <cmath>

#include "core/context.h"
#include "core/parallel.h"

namespace mixpl {

Parameter& ParameterStore::add(Parameter parameter) {
  if (!index_.emplace(parameter.name, parameters_.size()).second)
    throw ConfigError(str("model: two parameters are named '", parameter.name, "'"));
  parameters_.push_back(std::move(parameter));
  return parameters_.back();
}

Parameter* ParameterStore::find(const std::string& name) {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &parameters_[found->second];
}

namespace init {
namespace {
// K R S: what one input value reaches.
double fan_out(const Shape& s) { return static_cast<double>(s.numel() / s[-1]); }

// What one output value is made of.
double fan_in(const Tensor& t) {
  return static_cast<double>(t.numel()) / static_cast<double>(t.size(0));
}

void fill_uniform(double bound, Tensor& t, const Philox& random) {
  float* p = t.data<float>();
  parallel_for(t.numel(), [&](int64_t i) {
    p[i] = static_cast<float>(bound * (2.0 * random.uniform(i) - 1.0));
  });
}
}  // namespace

Init constant(float value) {
  return [=](Tensor& t, const Philox&) { t.fill(value); };
}
Init normal(float std) {
  return [=](Tensor& t, const Philox& random) {
    float* p = t.data<float>();
    parallel_for(t.numel(), [&](int64_t i) { p[i] = std * random.normal(i); });
  };
}
Init uniform(float bound) {
  return [=](Tensor& t, const Philox& random) { fill_uniform(bound, t, random); };
}
Init kaiming_normal_fan_out() {
  return [](Tensor& t, const Philox& random) {
    normal(static_cast<float>(std::sqrt(2.0 / fan_out(t.shape()))))(t, random);
  };
}
Init xavier_uniform() {
  return [](Tensor& t, const Philox& random) {
    const double receptive = static_cast<double>(t.numel()) / (t.size(0) * t.size(-1));
    fill_uniform(std::sqrt(6.0 / ((t.size(0) + t.size(-1)) * receptive)), t, random);
  };
}
Init xavier_fan_in() {
  return
      [](Tensor& t, const Philox& random) { fill_uniform(std::sqrt(3.0 / fan_in(t)), t, random); };
}
Init uniform_fan_in() {
  return
      [](Tensor& t, const Philox& random) { fill_uniform(std::sqrt(1.0 / fan_in(t)), t, random); };
}
}  // namespace init

namespace {
// FNV-1a: the stream of a parameter follows from its name, not from when it is made.
uint64_t hash_of(const std::string& text) {
  uint64_t h = 14695981039346656037ull;
  for (unsigned char c : text) h = (h ^ c) * 1099511628211ull;
  return h;
}
}  // namespace

Scope Scope::child(const std::string& name) const {
  Scope scope = *this;
  scope.prefix_ = path(name);
  return scope;
}

Scope Scope::frozen(bool on) const {
  Scope scope = *this;
  scope.frozen_ = frozen_ || on;
  return scope;
}

Tensor Scope::weight(const std::string& name, const Shape& shape, const Init& init,
                     bool norm) const {
  // Drawn on the host, so that a seed gives the same bits on every device.
  Tensor value = Tensor::empty(shape, DType::f32);
  init(value, Philox{seed_, hash_of(path(name))});
  value = value.to(Context::current().device);
  value.set_requires_grad(!frozen_);
  store_->add({path(name), value, ParameterKind::weight, norm, !frozen_});
  return value;
}

Tensor Scope::buffer(const std::string& name, const Shape& shape, float value) const {
  Tensor t = Tensor::full(shape, value, DType::f32, Context::current().device);
  store_->add({path(name), t, ParameterKind::buffer, true, false});
  return t;
}

std::shared_ptr<FoldedFilters> Scope::fold(FoldedFilters filters) const {
  store_->folds().push_back(std::make_shared<FoldedFilters>(std::move(filters)));
  return store_->folds().back();
}

}  // namespace mixpl
