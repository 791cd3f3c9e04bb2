#include "core/cuda/packs.h"
#include "ops/conv2d/filter_place_cuda.h"
#include "ops/fold_batch_norm/fold_batch_norm_math.h"
#include "optim/flat_table_cuda.h"
#include "optim/refresh_filters.h"

namespace mixpl::cuda {
namespace {

// Rows begin at 64 bytes, as their sources do.
MIXPL_DEVICE void store_rows(bfloat16* to, const Four& values, int64_t count) {
  Vec<bfloat16, 4> rounded;
#pragma unroll
  for (int k = 0; k < 4; ++k) rounded[k] = bfloat16(values[k]);
  if (count >= 4) {
    store_vec(to, rounded);
    return;
  }
  for (int k = 0; k < 3; ++k)
    if (k < count) to[k] = rounded[k];
}

struct Cast {
  MIXPL_DEVICE void operator()(FlatPiece piece, const CastRow& row) const {
    for_each_four(piece, row.numel, [&](int64_t at, int64_t count) {
      store_rows(row.to + at, load_four(row.from + at, count), count);
    });
  }
};

// As fold_batch_norm_forward, to the bit.
struct Fold {
  MIXPL_DEVICE void operator()(FlatPiece piece, const FoldRow& row) const {
    for_each_four(piece, row.numel, [&](int64_t at, int64_t count) {
      Four w = load_four(row.weight + at, count);
      int64_t filter = at / row.per, next = (filter + 1) * row.per;
      FoldedNorm norm = norm_of(row, filter);
      if (at == filter * row.per) row.bias[filter] = norm.bias;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (k < count && at + k == next) {
          norm = norm_of(row, ++filter);
          next += row.per;
          row.bias[filter] = norm.bias;
        }
        w[k] *= norm.scale;
      }
      store_four(row.folded + at, w, count);
      if (row.rows) store_rows(row.rows + at, w, count);
    });
  }
  static MIXPL_DEVICE FoldedNorm norm_of(const FoldRow& row, int64_t k) {
    return folded_norm(row.gamma[k], row.beta[k], row.mean[k], row.variance[k],
                       static_cast<float>(row.eps));
  }
};

bool same_owner(const std::shared_ptr<void>& a, const std::shared_ptr<void>& b) {
  return !a.owner_before(b) && !b.owner_before(a);
}

/// Adds rows that were derived from `t`, or from parts of it; what cannot be made in place is
/// forgotten.
void collect_casts(const Tensor& t, std::vector<CastRow>& rows) {
  TensorImpl& impl = *t.impl();
  std::erase_if(impl.derived, [&](auto& entry) {
    const Tensor* const of = std::any_cast<Tensor>(&entry.second);
    if (!of) return true;
    if (same_owner(of->impl()->storage, impl.storage)) {  // a view: its values are there already
      collect_casts(*of, rows);
      return false;
    }
    if (entry.first != key_of_plain_rows() || !of->unique()) return true;
    rows.push_back({t.data<float>(), of->data<bfloat16>(), t.numel()});
    return false;
  });
  impl.derived_version = impl.version;
}

/// Adds what is to be folded again.
void collect_folds(FoldedFilters& fold, std::vector<FoldRow>& rows) {
  if (!fold.values || fold.made_of == fold.versions()) return;
  const auto& [folded, bias] = *fold.values;
  const bool free = folded.unique() && bias.unique() && folded.numel() > 0;
  if (!free || !std::exchange(fold.used, false)) {
    fold.values.reset();
    return;
  }
  // Of what was derived from them, one kind is made here.
  TensorImpl& impl = *folded.impl();
  std::erase_if(impl.derived, [](auto& entry) {
    const Tensor* const of = std::any_cast<Tensor>(&entry.second);
    return entry.first != key_of_plain_rows() || !of || !of->unique();
  });
  const auto cast = impl.derived.find(key_of_plain_rows());
  bfloat16* const to =
      cast == impl.derived.end() ? nullptr : std::any_cast<Tensor>(&cast->second)->data<bfloat16>();
  const int64_t filters = folded.size(0);
  rows.push_back({fold.weight.data<float>(), fold.gamma.data<float>(), fold.beta.data<float>(),
                  fold.mean.data<float>(), fold.variance.data<float>(), folded.data<float>(),
                  bias.data<float>(), to, folded.numel(), folded.numel() / filters, fold.eps});
  ++impl.version;
  impl.derived_version = impl.version;
  fold.made_of = fold.versions();
}

}  // namespace

void refresh_filters(const std::vector<Tensor>& weights, const Folds& folds, FilterTables& tables) {
  try {
    std::vector<CastRow> casts;
    std::vector<FoldRow> to_fold;
    for (const Tensor& weight : weights)
      if (weight.impl()->derived_version != weight.impl()->version) collect_casts(weight, casts);
    for (const auto& fold : folds) collect_folds(*fold, to_fold);
    const Device device = Device::cuda(current_device());
    if (!casts.empty()) {
      tables.casts.assign(std::move(casts));
      for_each_piece(tables.casts, device, Cast{});
    }
    if (!to_fold.empty()) {
      tables.folds.assign(std::move(to_fold));
      for_each_piece(tables.folds, device, Fold{});
    }
  } catch (...) {
    // Nothing may pass for what it is not.
    for (const Tensor& weight : weights) weight.impl()->derived.clear();
    for (const auto& fold : folds) fold->values.reset();
    throw;
  }
}

}  // namespace mixpl::cuda
