#include "optim/gradient_norm.h"

#include "optim/flat_table_cpu.h"

namespace mixpl::cpu {

void clip_gradients(UpdateTable& table, double clip_norm, Tensor& clip) {
  std::vector<double> partial(table.pieces().size(), 0.0);
  for_each_piece(table, [&](int64_t p, FlatPiece piece, int64_t begin, int64_t end) {
    const float* g = table.rows()[piece.row].gradient;
    if (!g) return;
    // Sixteen lanes; lanes and pieces are added in a fixed order.
    double lanes[16] = {};
    int64_t k = begin;
    for (; k + 16 <= end; k += 16)
      for (int l = 0; l < 16; ++l) {
        const double value = g[k + l];
        lanes[l] += value * value;
      }
    double sum = 0;
    for (; k < end; ++k) sum += double(g[k]) * g[k];
    for (double lane : lanes) sum += lane;
    partial[p] = sum;
  });
  double sum = 0;
  for (double p : partial) sum += p;
  const double norm = std::sqrt(sum);
  const float* losses = clip.data<float>() + Clip::kFloats;
  const bool finite = std::all_of(losses, losses + clip.numel() - Clip::kFloats, is_finite);
  *Clip::of(clip) = {norm, clip_scale(norm, clip_norm), finite};
}

}  // namespace mixpl::cpu
