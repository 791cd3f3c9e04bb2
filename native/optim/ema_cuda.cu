#include "optim/ema.h"
#include "optim/flat_table_cuda.h"

namespace mixpl::cuda {
namespace {

struct EmaBody {
  float keep, share;
  const Clip* __restrict__ clip;

  MIXPL_DEVICE void operator()(FlatPiece piece, const EmaRow& row) const {
    if (clip && !clip->usable()) return;
    for_each_four(piece, row.numel, [&](int64_t at, int64_t count) {
      Four s = load_four(row.student + at, count);
      if (keep != 0) {  // else a copy, which 0 times infinity would not be
        const Four t = load_four(row.teacher + at, count);
#pragma unroll
        for (int k = 0; k < 4; ++k) s[k] = ema_element(t[k], s[k], keep, share);
      }
      store_four(row.teacher + at, s, count);
    });
  }
};

}  // namespace

void ema_update(EmaTable& table, Device device, float keep, float share, const Clip* clip) {
  for_each_piece(table, device, EmaBody{keep, share, clip});
}

}  // namespace mixpl::cuda
