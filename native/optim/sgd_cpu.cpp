#include "optim/sgd.h"

#include "optim/flat_table_cpu.h"

namespace mixpl::cpu {

void sgd_update(UpdateTable& table, Mirrored<SgdFactors>& factors, SgdKind kind, float momentum,
                const Tensor& clip) {
  if (!Clip::of(clip)->usable()) return;
  const float scale = Clip::of(clip)->scale;
  with_kind(kind, [&]<SgdKind kKind>() {
    for_each_piece(table, [&](int64_t, FlatPiece piece, int64_t begin, int64_t end) {
      const UpdateRow& row = table.rows()[piece.row];
      if (!row.gradient) return;
      const SgdFactors f = factors.values[piece.row];
      float* __restrict w = row.value;
      float* __restrict v = row.first;
      const float* __restrict g = row.gradient;
      float none = 0;
      for (int64_t k = begin; k < end; ++k)
        sgd_element<kKind>(w[k], kKind == SgdKind::plain ? none : v[k], g[k], scale, momentum, f);
    });
  });
}

}  // namespace mixpl::cpu
