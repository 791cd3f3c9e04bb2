// A band of rows at a time: resample each layer into a small RGB buffer, colour it, add it to the
// band's sum, write the network's input once. Bands are independent, so threads never share a pixel
// and the result does not depend on their number.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "core/parallel.h"
#include "image/compose/color.h"
#include "image/compose/compose.h"

namespace mixpl::cpu {
namespace {

constexpr int kBandRows = 32;
constexpr int kMostSamples = 16;  // per axis, where a layer that is turned shrinks

// Where one output coordinate reads along one axis: taps [first, first + count) with weights.
struct Taps {
  int first = 0, count = 0;  // count 0: outside the source
  int weights = 0;           // index into the axis' weight list
};

struct Axis {
  std::vector<Taps> taps;
  std::vector<float> weights;
};

// position = scale * (i + 0.5) + offset, continuous; pixel k of the source covers [k, k + 1).
Axis make_axis(int begin, int end, double scale, double offset, int size) {
  Axis axis;
  axis.taps.reserve(end - begin);
  const double reach = std::max(1.0, std::fabs(scale));  // half width of the triangle filter
  for (int i = begin; i < end; ++i) {
    const double at = scale * (i + 0.5) + offset;
    Taps t;
    if (at < 0 || at > size) {
      axis.taps.push_back(t);
      continue;
    }
    t.weights = static_cast<int>(axis.weights.size());
    // Taps beyond the edge read the edge pixel: their weight moves to it.
    const int low = static_cast<int>(std::floor(at - 0.5 - reach)) + 1;
    const int high = static_cast<int>(std::ceil(at - 0.5 + reach)) - 1;
    t.first = std::clamp(low, 0, size - 1);
    t.count = std::clamp(high, 0, size - 1) - t.first + 1;
    axis.weights.resize(axis.weights.size() + t.count, 0.0f);
    double total = 0;
    std::vector<double> w(t.count, 0.0);
    for (int k = low; k <= high; ++k) {
      const double value = std::max(0.0, 1.0 - std::fabs(k + 0.5 - at) / reach);
      w[std::clamp(k, 0, size - 1) - t.first] += value;
      total += value;
    }
    for (int k = 0; k < t.count; ++k)
      axis.weights[t.weights + k] = static_cast<float>(total > 0 ? w[k] / total : 1.0 / t.count);
    axis.taps.push_back(t);
  }
  return axis;
}

bool axis_aligned(const std::array<double, 9>& m) {
  return m[1] == 0 && m[3] == 0 && m[6] == 0 && m[7] == 0;
}

// A layer made ready: axes for the aligned case, colour tables.
struct Prepared {
  const ComposeLayer* layer;
  ComposeSource source;
  bool aligned = false;
  Axis columns;     // all of the layer's columns; rows are made per band
  double m[9];      // normalised so that m[8] = 1
  int samples = 1;  // per axis, for turned layers
  struct Stage {
    ColorOp op;
    float magnitude;
    ColorTable table;
  };
  std::vector<Stage> color;
  bool sharpens = false;
};

Prepared prepare(const ComposeLayer& layer, const ComposeSource& source,
                 std::map<int, ColorStatistics>& statistics) {
  Prepared p;
  p.layer = &layer;
  p.source = source;
  for (int i = 0; i < 9; ++i) p.m[i] = layer.map[i] / layer.map[8];
  p.aligned = axis_aligned(layer.map);
  if (p.aligned) {
    p.columns = make_axis(layer.x1, layer.x2, p.m[0], p.m[2], source.width);
  } else {
    // Source pixels per output pixel, by the longer of the map's two column vectors at the centre.
    const double x = 0.5 * (layer.x1 + layer.x2), y = 0.5 * (layer.y1 + layer.y2);
    const double w = p.m[6] * x + p.m[7] * y + 1;
    const double u = (p.m[0] * x + p.m[1] * y + p.m[2]) / w,
                 v = (p.m[3] * x + p.m[4] * y + p.m[5]) / w;
    const double dx = std::hypot(p.m[0] - u * p.m[6], p.m[3] - v * p.m[6]) / w;
    const double dy = std::hypot(p.m[1] - u * p.m[7], p.m[4] - v * p.m[7]) / w;
    p.samples = std::clamp(static_cast<int>(std::ceil(std::max(dx, dy) - 0.25)), 1, kMostSamples);
  }
  for (const ColorStep& step : layer.color) {
    Prepared::Stage stage{step.op, step.magnitude, {}};
    if (is_table(step.op)) stage.table = color_table(step, statistics[layer.source]);
    p.sharpens = p.sharpens || step.op == ColorOp::sharpness;
    p.color.push_back(stage);
  }
  return p;
}

// Rows [top, bottom) of the layer into `band`, RGB float, layer's width; `inside` says which pixels
// came from the source.
void resample_aligned(const Prepared& p, int top, int bottom, float* band, uint8_t* inside) {
  const ComposeLayer& l = *p.layer;
  const int width = l.x2 - l.x1;
  const Axis rows = make_axis(top, bottom, p.m[4], p.m[5], p.source.height);
  int low = p.source.height, high = -1;
  for (const Taps& t : rows.taps)
    if (t.count) {
      low = std::min(low, t.first);
      high = std::max(high, t.first + t.count - 1);
    }
  // Horizontal pass over the source rows that this band needs, each once.
  std::vector<float> wide(high >= low ? size_t(high - low + 1) * width * 3 : 0);
  for (int y = low; y <= high; ++y) {
    const uint8_t* from = p.source.data + size_t(y) * p.source.width * 3;
    float* to = wide.data() + size_t(y - low) * width * 3;
    for (int x = 0; x < width; ++x, to += 3) {
      const Taps t = p.columns.taps[x];
      const float* w = p.columns.weights.data() + t.weights;
      const uint8_t* v = from + size_t(t.first) * 3;
      float r = 0, g = 0, b = 0;
      for (int k = 0; k < t.count; ++k, v += 3) {
        r += w[k] * v[0];
        g += w[k] * v[1];
        b += w[k] * v[2];
      }
      to[0] = r;
      to[1] = g;
      to[2] = b;
    }
  }
  for (int y = top; y < bottom; ++y) {
    const Taps t = rows.taps[y - top];
    float* to = band + size_t(y - top) * width * 3;
    uint8_t* in = inside + size_t(y - top) * width;
    std::fill_n(to, size_t(width) * 3, 0.0f);
    for (int k = 0; k < t.count; ++k) {
      const float w = rows.weights[t.weights + k];
      const float* from = wide.data() + size_t(t.first + k - low) * width * 3;
      for (int i = 0; i < 3 * width; ++i) to[i] += w * from[i];
    }
    for (int x = 0; x < width; ++x) {
      in[x] = t.count > 0 && p.columns.taps[x].count > 0;
      if (!in[x])
        for (int c = 0; c < 3; ++c) to[3 * x + c] = l.fill[c];
    }
  }
}

void resample_turned(const Prepared& p, int top, int bottom, float* band, uint8_t* inside) {
  const ComposeLayer& l = *p.layer;
  const int width = l.x2 - l.x1, w = p.source.width, h = p.source.height, n = p.samples;
  const float share = 1.0f / float(n * n);
  for (int y = top; y < bottom; ++y)
    for (int x = l.x1; x < l.x2; ++x) {
      float* to = band + (size_t(y - top) * width + (x - l.x1)) * 3;
      float sum[3] = {0, 0, 0};
      int hits = 0;
      for (int s = 0; s < n * n; ++s) {
        const double px = x + (s % n + 0.5) / n, py = y + (s / n + 0.5) / n;
        const double z = p.m[6] * px + p.m[7] * py + 1;
        const float u = static_cast<float>((p.m[0] * px + p.m[1] * py + p.m[2]) / z);
        const float v = static_cast<float>((p.m[3] * px + p.m[4] * py + p.m[5]) / z);
        if (!(u >= 0 && v >= 0 && u <= w && v <= h)) {
          for (int c = 0; c < 3; ++c) sum[c] += l.fill[c];
          continue;
        }
        ++hits;
        const float fu = u - 0.5f, fv = v - 0.5f, bu = std::floor(fu), bv = std::floor(fv);
        const float a = fu - bu, b = fv - bv;
        const int x0 = std::clamp(static_cast<int>(bu), 0, w - 1);
        const int x1 = std::clamp(static_cast<int>(bu) + 1, 0, w - 1);
        const int y0 = std::clamp(static_cast<int>(bv), 0, h - 1);
        const int y1 = std::clamp(static_cast<int>(bv) + 1, 0, h - 1);
        const uint8_t* r0 = p.source.data + size_t(y0) * w * 3;
        const uint8_t* r1 = p.source.data + size_t(y1) * w * 3;
        for (int c = 0; c < 3; ++c) {
          const float upper = r0[3 * x0 + c] + a * (r0[3 * x1 + c] - r0[3 * x0 + c]);
          const float lower = r1[3 * x0 + c] + a * (r1[3 * x1 + c] - r1[3 * x0 + c]);
          sum[c] += upper + b * (lower - upper);
        }
      }
      for (int c = 0; c < 3; ++c) to[c] = sum[c] * share;
      inside[size_t(y - top) * width + (x - l.x1)] = hits > 0;
    }
}

// Rows [top, bottom) coloured in place; `halo` rows above and below are there for the 3x3 filter.
void apply_color(const Prepared& p, int rows, int first, int count, std::vector<float>& band,
                 const std::vector<uint8_t>& inside) {
  const int width = p.layer->x2 - p.layer->x1;
  if (p.color.empty() || width == 0) return;
  const size_t pixels = size_t(rows) * width;
  // The reference rounds to uint8 after resampling and after every operation.
  for (size_t i = 0; i < 3 * pixels; ++i) band[i] = to_byte(band[i]);
  std::vector<float> copy;
  for (const auto& stage : p.color) {
    if (stage.op == ColorOp::sharpness) {
      copy = band;
      const auto at = [&](int y, int x, int c) {
        // Mirrored without repeating the edge (OpenCV's reflect-101).
        y = y < 0 ? std::min(-y, rows - 1) : y >= rows ? std::max(2 * rows - 2 - y, 0) : y;
        x = x < 0 ? std::min(-x, width - 1) : x >= width ? std::max(2 * width - 2 - x, 0) : x;
        return copy[(size_t(y) * width + x) * 3 + c];
      };
      for (int y = first; y < first + count; ++y)
        for (int x = 0; x < width; ++x) {
          if (!inside[size_t(y) * width + x] && !p.layer->color_fill) continue;
          for (int c = 0; c < 3; ++c) {
            float smooth = 4 * at(y, x, c);
            for (int dy = -1; dy <= 1; ++dy)
              for (int dx = -1; dx <= 1; ++dx) smooth += at(y + dy, x + dx, c);
            const float blurred = to_byte(smooth / 13.0f);
            float& v = band[(size_t(y) * width + x) * 3 + c];
            v = to_byte(stage.magnitude * v + (1 - stage.magnitude) * blurred);
          }
        }
      continue;
    }
    for (size_t i = 0; i < pixels; ++i) {
      if (!inside[i] && !p.layer->color_fill) continue;
      float* v = band.data() + 3 * i;
      if (stage.op == ColorOp::color) {
        const float grey = (1 - stage.magnitude) * grey_of(v[0], v[1], v[2]);
        for (int c = 0; c < 3; ++c) v[c] = to_byte(stage.magnitude * v[c] + grey);
      } else {
        for (int c = 0; c < 3; ++c) v[c] = stage.table[c][static_cast<uint8_t>(v[c])];
      }
    }
  }
}

struct Scratch {
  std::vector<float> band, sum;
  std::vector<uint8_t> inside;
};

// Adds rows [top, bottom) of the layer to `sum` (batch width, output channels).
void add_layer(const Prepared& p, const Normalisation& norm, int top, int bottom, int first_row,
               int64_t batch_width, Scratch& scratch) {
  const ComposeLayer& l = *p.layer;
  const int y1 = std::max(top, l.y1), y2 = std::min(bottom, l.y2), width = l.x2 - l.x1;
  if (y1 >= y2 || width == 0) return;
  const int halo = p.sharpens ? 1 : 0;
  const int from = std::max(l.y1, y1 - halo), to = std::min(l.y2, y2 + halo);
  const size_t pixels = size_t(to - from) * width;
  scratch.band.resize(3 * pixels);
  scratch.inside.resize(pixels);
  if (p.aligned)
    resample_aligned(p, from, to, scratch.band.data(), scratch.inside.data());
  else
    resample_turned(p, from, to, scratch.band.data(), scratch.inside.data());
  apply_color(p, to - from, y1 - from, y2 - y1, scratch.band, scratch.inside);

  float scale[3], shift[3];
  const int order[3] = {norm.bgr ? 2 : 0, 1, norm.bgr ? 0 : 2};
  for (int c = 0; c < 3; ++c) {
    scale[c] = l.weight / norm.std[c];
    shift[c] = -norm.mean[c] * scale[c];
  }
  std::vector<uint8_t> erased(l.erase.empty() ? 0 : width);
  for (int y = y1; y < y2; ++y) {
    float* row = scratch.band.data() + size_t(y - from) * width * 3;
    if (!erased.empty()) std::fill(erased.begin(), erased.end(), uint8_t{0});
    for (const EraseRect& e : l.erase) {
      if (y < e.y1 || y >= e.y2) continue;
      for (int x = std::max(e.x1, l.x1); x < std::min(e.x2, l.x2); ++x) {
        erased[x - l.x1] = e.value < 0;
        if (e.value >= 0)
          for (int c = 0; c < 3; ++c) row[3 * (x - l.x1) + c] = e.value;
      }
    }
    float* out = scratch.sum.data() + (size_t(y - first_row) * batch_width + l.x1) * 3;
    if (erased.empty()) {
      for (int x = 0; x < width; ++x)
        for (int c = 0; c < 3; ++c) out[3 * x + c] += row[3 * x + order[c]] * scale[c] + shift[c];
    } else {
      for (int x = 0; x < width; ++x) {
        if (erased[x]) continue;
        for (int c = 0; c < 3; ++c) out[3 * x + c] += row[3 * x + order[c]] * scale[c] + shift[c];
      }
    }
  }
}

}  // namespace

void compose(const std::vector<ComposeImage>& images, const std::vector<ComposeSource>& sources,
             const Normalisation& norm, Tensor& out) {
  const int64_t height = out.size(1), width = out.size(2);
  // Statistics of the sources whose tables need them, one thread a source.
  std::map<int, ColorStatistics> statistics;
  for (const auto& image : images)
    for (const auto& layer : image.layers)
      for (const auto& step : layer.color)
        if (needs_statistics(step.op)) statistics[layer.source];
  std::vector<int> wanted;
  for (const auto& entry : statistics) wanted.push_back(entry.first);
  parallel_for(static_cast<int64_t>(wanted.size()), int64_t{1},
               [&](int64_t i) { statistics.at(wanted[i]) = color_statistics(sources[wanted[i]]); });

  std::vector<std::vector<Prepared>> prepared(images.size());
  for (size_t n = 0; n < images.size(); ++n)
    for (const auto& layer : images[n].layers)
      prepared[n].push_back(prepare(layer, sources[layer.source], statistics));

  const int64_t bands = (height + kBandRows - 1) / kBandRows;
  dispatch_floating(out.dtype(), [&](auto tag) {
    using T = decltype(tag);
    T* pixels = out.data<T>();
    const int64_t jobs = static_cast<int64_t>(images.size()) * bands;
    std::exception_ptr error;
    // Bands differ in cost (padding is free): hand them out as threads become idle.
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t job = 0; job < jobs; ++job) {
      try {
        static thread_local Scratch scratch;
        const int64_t n = job / bands;
        const int top = static_cast<int>(job % bands * kBandRows);
        const int bottom = static_cast<int>(std::min<int64_t>(height, top + kBandRows));
        const size_t count = size_t(bottom - top) * width * 3;
        scratch.sum.assign(count, 0.0f);
        for (const Prepared& p : prepared[n]) add_layer(p, norm, top, bottom, top, width, scratch);
        T* to = pixels + (n * height + top) * width * 3;
        for (size_t i = 0; i < count; ++i) to[i] = T(scratch.sum[i]);
      } catch (...) {
#pragma omp critical
        error = std::current_exception();
      }
    }
    if (error) std::rethrow_exception(error);
  });
}

}  // namespace mixpl::cpu
