#include "optim/ema.h"

#include "optim/flat_table_cpu.h"

namespace mixpl::cpu {

void ema_update(EmaTable& table, Device, float keep, float share, const Clip* clip) {
  if (clip && !clip->usable()) return;
  for_each_piece(table, [&](int64_t, FlatPiece piece, int64_t begin, int64_t end) {
    float* __restrict t = table.rows()[piece.row].teacher;
    const float* __restrict s = table.rows()[piece.row].student;
    if (keep == 0)
      std::copy(s + begin, s + end, t + begin);
    else
      for (int64_t k = begin; k < end; ++k) t[k] = ema_element(t[k], s[k], keep, share);
  });
}

}  // namespace mixpl::cpu
