#include "optim/flat_table_cuda.h"
#include "optim/sgd.h"

namespace mixpl::cuda {
namespace {

template <SgdKind kKind>
struct SgdBody {
  const SgdFactors* __restrict__ factors;
  const Clip* __restrict__ clip;
  float momentum;

  MIXPL_DEVICE void operator()(FlatPiece piece, const UpdateRow& row) const {
    if (!row.gradient || !clip->usable()) return;
    const SgdFactors f = factors[piece.row];
    const float scale = clip->scale;
    for_each_four(piece, row.numel, [&](int64_t at, int64_t count) {
      Four w = load_four(row.value + at, count), v{};
      if constexpr (kKind != SgdKind::plain) v = load_four(row.first + at, count);
      const Four g = load_four(row.gradient + at, count);
#pragma unroll
      for (int k = 0; k < 4; ++k) sgd_element<kKind>(w[k], v[k], g[k], scale, momentum, f);
      store_four(row.value + at, w, count);
      if constexpr (kKind != SgdKind::plain) store_four(row.first + at, v, count);
    });
  }
};

}  // namespace

void sgd_update(UpdateTable& table, Mirrored<SgdFactors>& factors, SgdKind kind, float momentum,
                const Tensor& clip) {
  const Device device = clip.device();
  with_kind(kind, [&]<SgdKind kKind>() {
    for_each_piece(table, device, SgdBody<kKind>{factors.on(device), Clip::of(clip), momentum});
  });
}

}  // namespace mixpl::cuda
