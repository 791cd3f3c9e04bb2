#include "optim/adamw.h"
#include "optim/flat_table_cuda.h"

namespace mixpl::cuda {
namespace {

struct AdamWBody {
  const AdamWRates* __restrict__ rates;
  const Clip* __restrict__ clip;
  AdamWFactors factors;

  MIXPL_DEVICE void operator()(FlatPiece piece, const UpdateRow& row) const {
    if (!row.gradient || !clip->usable()) return;
    const AdamWRates r = rates[piece.row];
    const float scale = clip->scale;
    for_each_four(piece, row.numel, [&](int64_t at, int64_t count) {
      Four w = load_four(row.value + at, count);
      Four m = load_four(row.first + at, count), v = load_four(row.second + at, count);
      const Four g = load_four(row.gradient + at, count);
#pragma unroll
      for (int k = 0; k < 4; ++k) adamw_element(w[k], m[k], v[k], g[k], scale, factors, r);
      store_four(row.value + at, w, count);
      store_four(row.first + at, m, count);
      store_four(row.second + at, v, count);
    });
  }
};

}  // namespace

void adamw_update(UpdateTable& table, Mirrored<AdamWRates>& rates, const AdamWFactors& factors,
                  const Tensor& clip) {
  const Device device = clip.device();
  for_each_piece(table, device, AdamWBody{rates.on(device), Clip::of(clip), factors});
}

}  // namespace mixpl::cuda
