#include "image/compose/sampling.h"

#include <algorithm>
#include <cmath>

#include "image/compose/compose_math.h"

namespace mixpl {
namespace {

constexpr int kMostSamples = 16;  // per axis and pixel

}  // namespace

Axis make_axis(int begin, int end, double scale, double offset, int size, bool antialias) {
  Axis axis;
  const auto position = [&](int i) { return scale * (i + 0.5) + offset; };
  const auto on = [&](int i) { return position(i) >= 0 && position(i) <= size; };
  int low = begin, high = end;
  while (low < end && !on(low)) ++low;
  while (high > low && !on(high - 1)) --high;
  axis.inside = {low - begin, high - begin};
  // Half width of the triangle: one source pixel, or the coordinate's footprint where that is more,
  // but never more than the source.
  const double reach = antialias ? limited(std::fabs(scale), 1, std::max(1, size)) : 1;
  const auto taps_of = [&](int i, int& first, int& last) {
    first = static_cast<int>(std::floor(position(i) - 0.5 - reach)) + 1;
    last = std::max(first, static_cast<int>(std::ceil(position(i) - 0.5 + reach)) - 1);
  };
  int first, last;
  for (int i = low; i < high; ++i) {
    taps_of(i, first, last);
    axis.taps = std::max(axis.taps, clamp_index(last, size) - clamp_index(first, size) + 1);
  }
  axis.first.reserve(high - low);
  axis.weights.assign(size_t(high - low) * axis.taps, 0.0f);
  std::vector<double> w(axis.taps);
  for (int i = low; i < high; ++i) {
    taps_of(i, first, last);
    const int base = std::min(clamp_index(first, size), size - axis.taps);
    std::fill(w.begin(), w.end(), 0.0);
    double total = 0;
    for (int k = first; k <= last; ++k) {
      const double value = triangle_weight(k, position(i), reach);
      w[clamp_index(k, size) - base] += value;  // beyond the edge its pixel is read again
      total += value;
    }
    for (int k = 0; k < axis.taps; ++k)
      axis.weights[size_t(i - low) * axis.taps + k] = static_cast<float>(w[k] / total);
    axis.first.push_back(base);
  }
  axis.shifts = axis.taps == 1 && scale > 0;
  for (size_t i = 0; i < axis.first.size() && axis.shifts; ++i)
    axis.shifts = axis.weights[i] == 1 && axis.first[i] == axis.first[0] + static_cast<int>(i);
  return axis;
}

Sampling make_sampling(const ComposeLayer& layer, const ComposeSource& source, bool bgr) {
  Sampling s;
  s.source = source;
  s.x1 = layer.x1;
  s.y1 = layer.y1;
  s.width = layer.x2 - layer.x1;
  s.height = layer.y2 - layer.y1;
  s.bgr = bgr;
  s.fill = layer.fill;
  if (bgr) std::swap(s.fill[0], s.fill[2]);
  s.map = layer.map;
  auto& m = s.map;
  s.affine = m[6] == 0 && m[7] == 0;
  if (s.affine)
    for (double& v : m) v /= layer.map[8];
  s.aligned = s.affine && m[1] == 0 && m[3] == 0;
  if (s.aligned) {
    s.columns = make_axis(layer.x1, layer.x2, m[0], m[2], source.width, layer.antialias);
    s.rows = make_axis(layer.y1, layer.y2, m[4], m[5], source.height, layer.antialias);
    return s;
  }
  if (!layer.antialias) return s;
  // Source pixels per pixel, by the longer of the map's two column vectors at the layer's centre.
  const double x = 0.5 * (layer.x1 + layer.x2), y = 0.5 * (layer.y1 + layer.y2);
  const auto [u, v] = map_point(m.data(), x, y);
  const double z = m[6] * x + (m[7] * y + m[8]);
  const double dx = std::hypot(m[0] - u * m[6], m[3] - v * m[6]) / z;
  const double dy = std::hypot(m[1] - u * m[7], m[4] - v * m[7]) / z;
  s.samples = static_cast<int>(limited(std::ceil(std::max(dx, dy) - 0.25), 1, kMostSamples));
  return s;
}

}  // namespace mixpl
