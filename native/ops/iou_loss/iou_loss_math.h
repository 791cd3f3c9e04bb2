// Overlap losses of one pair of boxes with the gradient for the predicted one; no loops, no memory.
#pragma once

#include <cmath>

#include "core/launch.h"
#include "ops/iou_loss/iou_loss.h"

namespace mixpl {

struct IouTerm {
  double loss, d[4];  // d[k] = dloss / dpred[k]
};

/// One axis of a pair: extents and their derivatives by the predicted start and end.
struct IouAxis {
  double size, inter, hull;           // of pred, of the overlap, of the enclosing box; >= 0
  double dsize, dinter[2], dhull[2];  // dsize: by the end, minus that by the start
};

MIXPL_HD IouAxis iou_axis(double p1, double p2, double t1, double t2) {
  // The share of a maximum's gradient that goes to its first argument: 1, 0, or half of a tie.
  const auto share = [](double a, double b) { return a > b ? 1.0 : (a == b ? 0.5 : 0.0); };
  IouAxis axis{};
  axis.size = fmax(p2 - p1, 0.0);
  axis.dsize = p2 >= p1 ? 1.0 : 0.0;
  axis.inter = fmin(p2, t2) - fmax(p1, t1);
  axis.dinter[0] = -share(p1, t1);
  axis.dinter[1] = share(t2, p2);
  if (!(axis.inter > 0)) axis.inter = axis.dinter[0] = axis.dinter[1] = 0;
  axis.hull = fmax(p2, t2) - fmin(p1, t1);
  axis.dhull[0] = -share(t1, p1);
  axis.dhull[1] = share(p2, t2);
  if (!(axis.hull > 0)) axis.hull = axis.dhull[0] = axis.dhull[1] = 0;
  return axis;
}

MIXPL_HD IouTerm iou_term(const float* pred, const float* target, IouKind kind, double eps) {
  double p[4], t[4];
  for (int k = 0; k < 4; ++k) p[k] = pred[k], t[k] = target[k];
  for (int k = 0; k < 4; ++k)  // minima and maxima would pass over a NaN
    if (std::isnan(p[k]) || std::isnan(t[k])) return {NAN, {NAN, NAN, NAN, NAN}};
  const IouAxis x = iou_axis(p[0], p[2], t[0], t[2]), y = iou_axis(p[1], p[3], t[1], t[3]);
  const double target_w = fmax(t[2] - t[0], 0.0), target_h = fmax(t[3] - t[1], 0.0);
  const double inter = x.inter * y.inter;
  const double join = x.size * y.size + target_w * target_h - inter;
  const double hull = x.hull * y.hull;
  const double iou = inter / (join + eps);

  // Order of the four coordinates: x start, y start, x end, y end.
  double dinter[4], djoin[4], dhull[4], dw[4], dh[4];
  for (int k = 0; k < 4; ++k) {
    const bool on_x = k % 2 == 0;
    const int end = k / 2;
    const double sign = end ? 1.0 : -1.0;
    dw[k] = on_x ? sign * x.dsize : 0.0;
    dh[k] = on_x ? 0.0 : sign * y.dsize;
    dinter[k] = on_x ? x.dinter[end] * y.inter : y.dinter[end] * x.inter;
    dhull[k] = on_x ? x.dhull[end] * y.hull : y.dhull[end] * x.hull;
    djoin[k] = dw[k] * y.size + dh[k] * x.size - dinter[k];
  }
  IouTerm term{1.0 - iou, {}};
  for (int k = 0; k < 4; ++k) term.d[k] = -(dinter[k] - iou * djoin[k]) / (join + eps);

  if (kind == IouKind::giou) {
    const double penalty = (hull - join) / (hull + eps);
    term.loss += penalty;
    for (int k = 0; k < 4; ++k)
      term.d[k] += (dhull[k] - djoin[k] - penalty * dhull[k]) / (hull + eps);
  }
  if (kind == IouKind::diou || kind == IouKind::ciou) {
    const double dx = 0.5 * (p[0] + p[2] - t[0] - t[2]), dy = 0.5 * (p[1] + p[3] - t[1] - t[3]);
    const double diagonal = x.hull * x.hull + y.hull * y.hull + eps;
    const double penalty = (dx * dx + dy * dy) / diagonal;
    term.loss += penalty;
    for (int k = 0; k < 4; ++k) {
      const bool on_x = k % 2 == 0;
      const double ddiagonal = on_x ? 2 * x.hull * x.dhull[k / 2] : 2 * y.hull * y.dhull[k / 2];
      term.d[k] += ((on_x ? dx : dy) - penalty * ddiagonal) / diagonal;
    }
  }
  if (kind == IouKind::ciou) {
    constexpr double kFourOverPiSquared = 0.40528473456935108578;
    const double difference = atan2(target_w, target_h) - atan2(x.size, y.size);
    const double v = kFourOverPiSquared * difference * difference;
    const double denominator = 1.0 - iou + v + eps;
    const double alpha = denominator > 0 ? v / denominator : 0.0;
    term.loss += alpha * v;
    const double squares = x.size * x.size + y.size * y.size;
    if (squares > 0)
      for (int k = 0; k < 4; ++k)
        term.d[k] -= alpha * 2 * kFourOverPiSquared * difference *
                     (dw[k] * y.size - dh[k] * x.size) / squares;
  }
  return term;
}

}  // namespace mixpl
