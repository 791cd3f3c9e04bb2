// Named parameters and buffers of a model, and how they are first filled.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/philox.h"
#include "core/tensor.h"
#include "ops/fold_batch_norm/folded_filters.h"

namespace mixpl {

enum class ParameterKind : uint8_t {
  weight,  // trained
  buffer,  // state that no gradient reaches: running statistics
};

struct Parameter {
  std::string name;  // path in mmdetection's manner, e.g. "backbone.layer1.0.conv1.weight"
  Tensor value;      // f32; weights OHWI
  ParameterKind kind = ParameterKind::weight;
  bool norm = false;       // scale or shift of a normalisation layer
  bool trainable = false;  // false for buffers and frozen weights
};

/// All parameters of one model, in the order of construction.
class ParameterStore {
 public:
  Parameter& add(Parameter parameter);
  /// The parameter, or nullptr.
  Parameter* find(const std::string& name);
  std::vector<Parameter>& all() { return parameters_; }
  const std::vector<Parameter>& all() const { return parameters_; }
  /// Of all layers whose norm is folded into their filters.
  std::vector<std::shared_ptr<FoldedFilters>>& folds() { return folds_; }

 private:
  std::vector<std::shared_ptr<FoldedFilters>> folds_;
  std::vector<Parameter> parameters_;
  std::unordered_map<std::string, size_t> index_;
};

/// Fills a fresh f32 tensor; `random` is a stream of the parameter's own, named by its path.
using Init = std::function<void(Tensor&, const Philox& random)>;
namespace init {
Init constant(float value);
Init normal(float std);
/// Uniform in ±bound.
Init uniform(float bound);
/// He et al. 2015: std = sqrt(2 / fan_out), fan_out = K R S of OHWI weights.
Init kaiming_normal_fan_out();
/// Glorot and Bengio 2010: uniform in ±sqrt(6 / (fan_in + fan_out)).
Init xavier_uniform();
/// Caffe2's Xavier: uniform in ±sqrt(3 / fan_in), fan_in = R S C of OHWI weights.
Init xavier_fan_in();
/// torch.nn.Linear's default, Kaiming's with a = sqrt(5): uniform in ±sqrt(1 / fan_in).
Init uniform_fan_in();
}  // namespace init

/// Where a module puts its parameters: a path in a store. Cheap to copy.
class Scope {
 public:
  Scope(ParameterStore& store, uint64_t seed) : store_(&store), seed_(seed) {}

  Scope child(const std::string& name) const;
  /// The same place, its parameters frozen.
  Scope frozen(bool on = true) const;
  bool is_frozen() const { return frozen_; }

  /// Parameters lie on the device of Context::current().
  Tensor weight(const std::string& name, const Shape& shape, const Init& init,
                bool norm = false) const;
  Tensor buffer(const std::string& name, const Shape& shape, float value) const;
  /// What a layer folds, shared with it.
  std::shared_ptr<FoldedFilters> fold(FoldedFilters filters) const;

 private:
  std::string path(const std::string& name) const {
    return prefix_.empty() ? name : prefix_ + "." + name;
  }
  ParameterStore* store_;
  std::string prefix_;
  uint64_t seed_;
  bool frozen_ = false;
};

}  // namespace mixpl
