#include "optim/refresh_filters.h"

namespace mixpl::cpu {

void refresh_filters(const std::vector<Tensor>& weights, const Folds& folds, FilterTables&) {
  for (const Tensor& weight : weights) {
    TensorImpl& impl = *weight.impl();
    if (impl.derived_version != impl.version) impl.derived.clear();
  }
  for (const auto& fold : folds)
    if (fold->made_of != fold->versions()) fold->values.reset();
}

}  // namespace mixpl::cpu
