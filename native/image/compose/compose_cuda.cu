// One launch for a batch: a block makes a tile of one image. It goes through the image's layers,
// skips those that do not touch its tile, and keeps the sums in registers until the tile is written
// once.
//
// A layer without sharpness needs nothing from its neighbours: a thread makes its own pixel. With
// sharpness the block first makes the tile's 8-bit pixels and a rim of neighbours in shared memory.
// Sums are taken in the CPU's order, so the bits are the CPU's, too.
#include "core/cuda/kernel.h"
#include "image/compose/color_cuda.h"
#include "image/compose/compose.h"
#include "image/compose/compose_plan.h"
#include "image/compose/source_cache.h"

namespace mixpl::cuda {
namespace {

constexpr int kTileWidth = 32, kTileHeight = 8;
constexpr int kThreads = kTileWidth * kTileHeight;  // one a pixel

template <typename T>
struct ComposeView {
  const uint8_t* plan;    // the block of a ComposePlan
  const uint8_t* tables;  // [_, 3, 256]
  PlanArray<PlanArray<LayerPlan>> images;
  T* out;
  int height, width, tiles_across, tiles_down;
};

/// A value of 8 bits per channel; `paint`: the colour operations act on it.
struct alignas(4) BytePixel {
  uint8_t value[3];
  uint8_t paint;
};

MIXPL_DEVICE int smaller(int a, int b) { return a < b ? a : b; }
MIXPL_DEVICE int larger(int a, int b) { return a > b ? a : b; }

// --- resampling

/// RGB to the network's order. (An index that depends on `bgr` would put the array into memory.)
template <typename T>
MIXPL_DEVICE void order(bool bgr, T* rgb) {
  const T red = rgb[0];
  rgb[0] = bgr ? rgb[2] : red;
  rgb[2] = bgr ? red : rgb[2];
}

MIXPL_DEVICE void filter_row(const uint8_t* from, const float* weights, int taps, float* rgb) {
  for (int c = 0; c < 3; ++c) rgb[c] = weights[0] * static_cast<float>(load_read_only(from + c));
  for (int k = 1; k < taps; ++k)
    for (int c = 0; c < 3; ++c)
      rgb[c] += weights[k] * static_cast<float>(load_read_only(from + 3 * k + c));
}

// Rows are added in pairs, as on the CPU.
MIXPL_DEVICE void filter_pixel(const LayerPlan& l, const uint8_t* plan, int column, int row,
                               float* rgb) {
  const float* across = l.columns.weights.in(plan) + int64_t{column} * l.columns.taps;
  const float* down = l.rows.weights.in(plan) + int64_t{row} * l.rows.taps;
  const int64_t pitch = int64_t{3} * l.source_width;
  const uint8_t* from =
      l.source + l.rows.first.in(plan)[row] * pitch + int64_t{3} * l.columns.first.in(plan)[column];
  for (int k = 0; k < l.rows.taps; k += 2, from += 2 * pitch) {
    float pair[3];
    filter_row(from, across, l.columns.taps, pair);
    for (int c = 0; c < 3; ++c) pair[c] = down[k] * pair[c];
    if (k + 1 < l.rows.taps) {
      float below[3];
      filter_row(from + pitch, across, l.columns.taps, below);
      for (int c = 0; c < 3; ++c) pair[c] = pair[c] + down[k + 1] * below[c];
    }
    for (int c = 0; c < 3; ++c) rgb[c] = k == 0 ? pair[c] : rgb[c] + pair[c];
  }
}

// Mean of samples x samples points of the pixel. Returns whether one of them lies on the source.
template <bool kProjective>
MIXPL_DEVICE bool sample_pixel(const LayerPlan& l, const uint8_t* plan, int x, int y, float* rgb) {
  float sum[3] = {0, 0, 0};
  bool hit = false;
  const int n = static_cast<int>(l.samples.count);
  const double* offsets = l.samples.in(plan);
  for (int sy = 0; sy < n; ++sy)
    for (int sx = 0; sx < n; ++sx) {
      const double px = x + (l.x1 + offsets[sx]), py = l.y1 + y + offsets[sy];
      SourcePoint p;
      if constexpr (kProjective)
        p = l.affine ? map_affine(l.map, px, py) : map_point(l.map, px, py);
      else
        p = map_affine(l.map, px, py);
      float value[3] = {l.fill[0], l.fill[1], l.fill[2]};
      if (on_source(p, l.source_width, l.source_height)) {
        sample_bilinear(l.source, l.source_width, l.source_height, p, value);
        order(l.bgr, value);
        hit = true;
      }
      for (int c = 0; c < 3; ++c) sum[c] += value[c];
    }
  const float share = 1.0f / static_cast<float>(n * n);
  for (int c = 0; c < 3; ++c) rgb[c] = share * sum[c];
  return hit;
}

/// The pixel (x, y) of a layer, counted from its corner, channels in the network's order. Returns
/// whether it shows the source.
template <bool kProjective>
MIXPL_DEVICE bool resampled(const LayerPlan& l, const uint8_t* plan, int x, int y, float* rgb) {
  if (!l.aligned) return sample_pixel<kProjective>(l, plan, x, y, rgb);
  if (x < l.columns.begin || x >= l.columns.end || y < l.rows.begin || y >= l.rows.end) {
    for (int c = 0; c < 3; ++c) rgb[c] = l.fill[c];
    return false;
  }
  filter_pixel(l, plan, x - l.columns.begin, y - l.rows.begin, rgb);
  order(l.bgr, rgb);
  return true;
}

// --- colour

template <bool kProjective>
MIXPL_DEVICE BytePixel rounded_pixel(const LayerPlan& l, const uint8_t* plan, int x, int y) {
  float rgb[3];
  const bool shows = resampled<kProjective>(l, plan, x, y, rgb);
  return {{to_byte(rgb[0]), to_byte(rgb[1]), to_byte(rgb[2])},
          static_cast<uint8_t>(shows || l.color_fill)};
}

/// Any operation but sharpness.
MIXPL_DEVICE void apply_stage(const StagePlan& stage, const uint8_t* tables, bool bgr,
                              BytePixel& p) {
  if (stage.op == ColorOp::color) {
    const uint8_t grey = bgr ? grey_of(p.value[2], p.value[1], p.value[0])
                             : grey_of(p.value[0], p.value[1], p.value[2]);
    for (int c = 0; c < 3; ++c) p.value[c] = saturated(stage.blend, p.value[c], grey);
  } else {
    const uint8_t* table = tables + int64_t{stage.table} * (3 * 256);
    for (int c = 0; c < 3; ++c) p.value[c] = load_read_only(table + 256 * c + p.value[c]);
  }
}

/// Part of a layer, counted from its corner.
struct Region {
  int x1, y1, width, height;
};

MIXPL_DEVICE BytePixel sharpened_pixel(Blend blend, const BytePixel* pixels, const Region& r,
                                       int i) {
  BytePixel p = pixels[i];
  if (!p.paint) return p;
  const int x = i % r.width, y = i / r.width;
  int sum[3] = {0, 0, 0};
  for (int dy = -1; dy <= 1; ++dy)
    for (int dx = -1; dx <= 1; ++dx) {
      const BytePixel& q = pixels[mirror(y + dy, r.height) * r.width + mirror(x + dx, r.width)];
      for (int c = 0; c < 3; ++c) sum[c] += q.value[c];
    }
  for (int c = 0; c < 3; ++c) p.value[c] = sharpened(blend, sum[c], p.value[c]);
  return p;
}

/// Makes the region's pixels in `pixels`; `other` has room for as many. The whole block calls. At
/// an end that is not the layer's own each sharpness spoils one row or column of the rim.
/// @return which of the two holds the result
template <bool kProjective>
MIXPL_DEVICE const BytePixel* color_region(const LayerPlan& l, const uint8_t* plan,
                                           const uint8_t* tables, const Region& r,
                                           BytePixel* pixels, BytePixel* other) {
  const int count = r.width * r.height, first = static_cast<int>(threadIdx.x);
  sync_block();  // the layer before may still be read
  for (int i = first; i < count; i += kThreads)
    pixels[i] = rounded_pixel<kProjective>(l, plan, r.x1 + i % r.width, r.y1 + i / r.width);
  const StagePlan* stages = l.stages.in(plan);
  for (uint32_t s = 0; s < l.stages.count; ++s) {
    const StagePlan stage = stages[s];
    if (stage.op != ColorOp::sharpness) {
      for (int i = first; i < count; i += kThreads)
        if (pixels[i].paint) apply_stage(stage, tables, l.bgr, pixels[i]);
      continue;
    }
    sync_block();
    for (int i = first; i < count; i += kThreads)
      other[i] = sharpened_pixel(stage.blend, pixels, r, i);
    sync_block();
    BytePixel* const done = other;
    other = pixels;
    pixels = done;
  }
  sync_block();
  return pixels;
}

// --- a layer's part of the sum

/// @param x, y of the composition; rgb: the layer's value there
MIXPL_DEVICE void add_value(const LayerPlan& l, const uint8_t* plan, int x, int y, float* rgb,
                            float* sum) {
  bool erased = false;
  const EraseRect* rects = l.erase.in(plan);
  for (uint32_t i = 0; i < l.erase.count; ++i) {
    const EraseRect e = rects[i];
    if (x < e.x1 || x >= e.x2 || y < e.y1 || y >= e.y2) continue;
    erased = e.value < 0;
    if (erased) continue;
    const float value =
        l.stages.count ? static_cast<float>(static_cast<uint8_t>(e.value)) : e.value;
    for (int c = 0; c < 3; ++c) rgb[c] = value;
  }
  if (erased) return;
  for (int c = 0; c < 3; ++c) sum[c] += scaled(l.scale[c], rgb[c]);
}

MIXPL_DEVICE void add_bytes(const LayerPlan& l, const uint8_t* plan, int x, int y,
                            const BytePixel& p, float* sum) {
  float rgb[3] = {float(p.value[0]), float(p.value[1]), float(p.value[2])};
  add_value(l, plan, x, y, rgb, sum);
}

/// A pixel of a layer without sharpness.
template <bool kProjective>
MIXPL_DEVICE void add_pixel(const LayerPlan& l, const uint8_t* plan, const uint8_t* tables, int x,
                            int y, float* sum) {
  if (l.stages.count == 0) {
    float rgb[3];
    resampled<kProjective>(l, plan, x - l.x1, y - l.y1, rgb);
    return add_value(l, plan, x, y, rgb, sum);
  }
  BytePixel p = rounded_pixel<kProjective>(l, plan, x - l.x1, y - l.y1);
  if (p.paint)
    for (uint32_t s = 0; s < l.stages.count; ++s)
      apply_stage(l.stages.in(plan)[s], tables, l.bgr, p);
  add_bytes(l, plan, x, y, p, sum);
}

// --- the kernel

/// Rows of a tile to the output: four values at a time where rows allow it.
template <typename T>
MIXPL_DEVICE void write_tile(const float* tile, T* out, int64_t row_values, int columns, int rows) {
  constexpr int kTileValues = 3 * kTileWidth;
  const int count = 3 * columns;
  const bool wide = row_values % 4 == 0 && count % 4 == 0;
  const int step = wide ? 4 : 1, per_row = count / step;
  for (int i = static_cast<int>(threadIdx.x); i < per_row * rows; i += kThreads) {
    const int y = i / per_row, x = (i - y * per_row) * step;
    const float* from = tile + y * kTileValues + x;
    T* to = out + y * row_values + x;
    if (!wide) {
      *to = T(*from);
      continue;
    }
    Vec<T, 4> values;
    for (int k = 0; k < 4; ++k) values[k] = T(from[k]);
    store_vec<T, 4>(to, values);
  }
}

/// kProjective: for batches with maps that are not affine, which divide in f64.
template <typename T, bool kProjective>
MIXPL_KERNEL __launch_bounds__(kThreads, 2) compose_kernel(ComposeView<T> v) {
  MIXPL_SHARED(float, tile, 3 * kThreads);
  MIXPL_DYNAMIC_SHARED(BytePixel, bytes);
  const int per_image = v.tiles_across * v.tiles_down;
  const int n = static_cast<int>(blockIdx.x) / per_image;
  const int place = static_cast<int>(blockIdx.x) - n * per_image;
  const int left = place % v.tiles_across * kTileWidth, top = place / v.tiles_across * kTileHeight;
  const int x = left + static_cast<int>(threadIdx.x) % kTileWidth;
  const int y = top + static_cast<int>(threadIdx.x) / kTileWidth;
  float sum[3] = {0, 0, 0};
  const PlanArray<LayerPlan> layers = v.images.in(v.plan)[n];
  for (uint32_t i = 0; i < layers.count; ++i) {
    const LayerPlan& l = layers.in(v.plan)[i];
    const int x1 = larger(left, l.x1), x2 = smaller(left + kTileWidth, l.x2);
    const int y1 = larger(top, l.y1), y2 = smaller(top + kTileHeight, l.y2);
    if (x1 >= x2 || y1 >= y2) continue;
    const BytePixel* pixels = nullptr;
    Region r{};
    if (l.halo) {
      r.x1 = larger(x1 - l.halo, l.x1) - l.x1;
      r.y1 = larger(y1 - l.halo, l.y1) - l.y1;
      r.width = smaller(x2 + l.halo, l.x2) - l.x1 - r.x1;
      r.height = smaller(y2 + l.halo, l.y2) - l.y1 - r.y1;
      pixels = color_region<kProjective>(l, v.plan, v.tables, r, bytes, bytes + r.width * r.height);
    }
    if (x < x1 || x >= x2 || y < y1 || y >= y2) continue;
    if (pixels)
      add_bytes(l, v.plan, x, y, pixels[(y - l.y1 - r.y1) * r.width + x - l.x1 - r.x1], sum);
    else
      add_pixel<kProjective>(l, v.plan, v.tables, x, y, sum);
  }
  for (int c = 0; c < 3; ++c) tile[3 * threadIdx.x + c] = sum[c];
  sync_block();
  const int64_t row_values = int64_t{3} * v.width;
  T* out = v.out + (int64_t{n} * v.height + top) * row_values + 3 * left;
  write_tile(tile, out, row_values, smaller(kTileWidth, v.width - left),
             smaller(kTileHeight, v.height - top));
}

}  // namespace

void compose(const std::vector<ComposeImage>& images, const std::vector<ComposeSource>& sources,
             const Normalisation& norm, Tensor& out) {
  if (out.numel() == 0) return;
  const Device device = out.device();
  std::vector<Tensor> copies;
  std::vector<ComposeSource> there = sources;
  for (ComposeSource& source : there) {
    copies.push_back(source_cache(device).on_device(source, device));
    source.data = copies.back().data<uint8_t>();
  }
  const ComposePlan plan = make_plan(images, there, norm);
  const Tensor block = Tensor::empty({static_cast<int64_t>(plan.block.size())}, DType::u8, device);
  copy_to_device(block.raw(), plan.block.data(), plan.block.size());
  const Tensor tables = color_tables(plan, block.data<uint8_t>(), device);

  const int height = static_cast<int>(out.size(1)), width = static_cast<int>(out.size(2));
  const int across = (width + kTileWidth - 1) / kTileWidth;
  const int down = (height + kTileHeight - 1) / kTileHeight;
  const int64_t tiles = out.size(0) * across * down;
  // The tile and its rim twice; a rim of 16 still fits what every GPU has.
  const size_t rim = 2 * static_cast<size_t>(plan.halo);
  const size_t shared =
      plan.halo ? 2 * sizeof(BytePixel) * (kTileWidth + rim) * (kTileHeight + rim) : 0;
  dispatch_floating(out.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const ComposeView<T> view{block.data<uint8_t>(),
                              tables.data<uint8_t>(),
                              plan.images,
                              out.data<T>(),
                              height,
                              width,
                              across,
                              down};
    launch(plan.projective ? compose_kernel<T, true> : compose_kernel<T, false>, tiles, kThreads,
           shared, view);
  });
}

}  // namespace mixpl::cuda
