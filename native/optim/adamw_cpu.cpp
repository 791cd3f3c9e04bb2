#include "optim/adamw.h"

#include "optim/flat_table_cpu.h"

namespace mixpl::cpu {

void adamw_update(UpdateTable& table, Mirrored<AdamWRates>& rates, const AdamWFactors& factors,
                  const Tensor& clip) {
  if (!Clip::of(clip)->usable()) return;
  const float scale = Clip::of(clip)->scale;
  for_each_piece(table, [&](int64_t, FlatPiece piece, int64_t begin, int64_t end) {
    const UpdateRow& row = table.rows()[piece.row];
    if (!row.gradient) return;
    const AdamWFactors f = factors;
    const AdamWRates r = rates.values[piece.row];
    float* __restrict w = row.value;
    float* __restrict m = row.first;
    float* __restrict v = row.second;
    const float* __restrict g = row.gradient;
    for (int64_t k = begin; k < end; ++k) adamw_element(w[k], m[k], v[k], g[k], scale, f, r);
  });
}

}  // namespace mixpl::cpu
