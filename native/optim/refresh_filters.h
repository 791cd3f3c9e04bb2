// What convolutions read instead of weights, behind an update of the weights: freed on the CPU,
// made anew on a GPU, in two launches for all layers, where each would take one of its own in the
// next pass.
#pragma once

#include <memory>
#include <vector>

#include "core/dtype.h"
#include "ops/fold_batch_norm/folded_filters.h"
#include "optim/flat_table.h"

namespace mixpl {

/// Filters that are cast to bf16.
struct CastRow {
  const float* from;
  bfloat16* to;
  int64_t numel;
};
/// Filters that a norm is folded into; `rows` as CastRow::to, or null.
struct FoldRow {
  const float *weight, *gamma, *beta, *mean, *variance;
  float *folded, *bias;
  bfloat16* rows;
  int64_t numel, per;  // elements; of a filter
  double eps;
};

/// Kept by who refreshes the same layers again: saves describing them to a GPU.
struct FilterTables {
  FlatTable<CastRow> casts;
  FlatTable<FoldRow> folds;
};
/// Layers' folds, shared with them.
using Folds = std::vector<std::shared_ptr<FoldedFilters>>;

namespace cpu {
/// Brings up to date what earlier passes derived from the weights, if nobody else holds it; the
/// rest is left for the next pass to make. Here all of it is: what is out of date is freed.
/// @param weights all on one device, of which convolutions or linear layers read some
/// @param folds   those that no pass has used since the last time are dropped
void refresh_filters(const std::vector<Tensor>& weights, const Folds& folds, FilterTables& tables);
}  // namespace cpu
namespace cuda {
void refresh_filters(const std::vector<Tensor>& weights, const Folds& folds, FilterTables& tables);
}  // namespace cuda

}  // namespace mixpl
