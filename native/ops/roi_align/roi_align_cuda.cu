#include <type_traits>

#include "core/cuda/packs.h"
#include "ops/roi_align/roi_align.h"
#include "ops/roi_align/roi_align_math.h"

namespace mixpl::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

template <typename T>
struct Level {
  T* map;  // null when no gradient is wanted
  int height, width;
  float scale;
  unsigned first_tile, tiles_x, tiles_y;  // backward: of one image
};

template <typename T>
struct Pyramid {
  Level<T> levels[kMostRoiLevels];
  int count = 0, images = 0;
  unsigned tiles = 0;  // of all images and levels
};

struct Regions {
  const Box* boxes;
  const int32_t* places;
  int count, channels;
  RoiAlignOptions o;

  // Whether a box can be placed at all; comparisons with NaN are false.
  MIXPL_DEVICE bool usable(int r, int images, int levels) const {
    const Box b = boxes[r];
    const int32_t image = places[2 * r], level = places[2 * r + 1];
    return image >= 0 && image < images && level >= 0 && level < levels &&
           fabsf(b.x1) < kFarthestEdge && fabsf(b.y1) < kFarthestEdge &&
           fabsf(b.x2) < kFarthestEdge && fabsf(b.y2) < kFarthestEdge;
  }
  template <typename T>
  MIXPL_DEVICE RoiAxis rows(int r, const Level<T>& level) const {
    return roi_axis(boxes[r].y1, boxes[r].y2, level.scale, level.height, o);
  }
  template <typename T>
  MIXPL_DEVICE RoiAxis columns(int r, const Level<T>& level) const {
    return roi_axis(boxes[r].x1, boxes[r].x2, level.scale, level.width, o);
  }
};

Regions regions_of(const Tensor& boxes, const Tensor& places, int64_t channels,
                   const RoiAlignOptions& o) {
  return {reinterpret_cast<const Box*>(boxes.data<float>()), places.data<int32_t>(),
          static_cast<int>(index_of(boxes.size(0))), static_cast<int>(index_of(channels)), o};
}

MIXPL_DEVICE float held(float v, float low, float high) { return greater(low, lesser(v, high)); }

// How far rounding may move the samples of a bin: little, unless the box begins far off the map.
MIXPL_DEVICE float slack_of(const RoiAxis& a, int bin) {
  return 1e-6f * (fabsf(a.start) + fabsf(static_cast<float>(bin) * a.bin));
}

// Share of a pixel in the mean over one bin's samples, along one axis.
MIXPL_DEVICE float tap_weight(const RoiAxis& a, int bin, int position, int size) {
  if (a.samples <= 0) return 0;
  int first = 0, last = a.samples - 1;
  const float step = a.bin / static_cast<float>(a.samples);
  if (step > 1e-3f) {
    // Only samples less than a pixel away; those off the map are that close to the edge.
    const float at = (static_cast<float>(position) - a.start) / step -
                     static_cast<float>(bin) * static_cast<float>(a.samples) - 0.5f;
    const float away = (1 + slack_of(a, bin)) / step + 1;
    const auto most = static_cast<float>(a.samples);
    first = static_cast<int>(held(std::floor(at - away), 0, most));
    last = static_cast<int>(held(std::ceil(at + away), -1, most - 1));
  }
  float sum = 0;
  for (int s = first; s <= last; ++s) {
    const RoiSample sample = roi_sample(a, bin, s, size);
    if (!sample.inside) continue;
    if (sample.low == position) sum += 1.0f - sample.part;
    if (sample.low + 1 == position) sum += sample.part;
  }
  return sum / static_cast<float>(a.samples);
}

// Pixels that the samples of a bin can touch: first ... last, none when last < first.
struct Span {
  int first, last;
};
MIXPL_DEVICE Span span_of(const RoiAxis& a, int bin, int size) {
  if (a.samples <= 0) return {0, -1};
  const float begin = a.start + static_cast<float>(bin) * a.bin, end = begin + a.bin;
  const float slack = slack_of(a, bin), edge = static_cast<float>(size - 1);
  return {static_cast<int>(held(std::floor(lesser(begin, end) - slack), 0, edge)),
          static_cast<int>(held(std::floor(greater(begin, end) + slack) + 1, 0, edge))};
}

// A warp for each bin, its lanes side by side on packs of channels. Lanes also share the work of
// weighing: each knows the weight of one row and one column of a square of 32 pixels.
template <int N, typename T>
MIXPL_KERNEL __launch_bounds__(kThreads, 2)
    forward_kernel(Pyramid<const T> pyramid, Regions regions, T* out) {
  const int size = regions.o.size;
  const int64_t bin = thread_index() / 32;
  if (bin >= int64_t{regions.count} * size * size) return;
  const int r = static_cast<int>(bin / (size * size)), by = static_cast<int>(bin / size % size),
            bx = static_cast<int>(bin % size);
  const int64_t channel = (int64_t{blockIdx.y} * 32 + lane()) * N;
  const bool active = channel < regions.channels;
  float sum[N] = {};
  if (regions.usable(r, pyramid.images, pyramid.count)) {
    const Level<const T>& level = pyramid.levels[regions.places[2 * r + 1]];
    const int height = level.height, width = level.width;
    const T* map =
        level.map + int64_t{regions.places[2 * r]} * height * width * regions.channels + channel;
    const RoiAxis rows = regions.rows(r, level), columns = regions.columns(r, level);
    Span ys = span_of(rows, by, height), xs = span_of(columns, bx, width);
    if (height == 0 || width == 0) ys.last = -1;
    for (int y0 = ys.first; y0 <= ys.last; y0 += 32)
      for (int x0 = xs.first; x0 <= xs.last; x0 += 32) {
        const float of_row = tap_weight(rows, by, y0 + lane(), height),
                    of_column = tap_weight(columns, bx, x0 + lane(), width);
        const int y_end = ys.last - y0 < 31 ? ys.last - y0 : 31,
                  x_end = xs.last - x0 < 31 ? xs.last - x0 : 31;
        for (int y = 0; y <= y_end; ++y) {
          const float share = shfl(of_row, y);
          const T* row = map + (int64_t{y0 + y} * width + x0) * regions.channels;
          for (int x = 0; x <= x_end; ++x) {
            const float weight = share * shfl(of_column, x);
            if (weight == 0 || !active) continue;
            const Vec<T, N> v = load_vec<T, N>(row + int64_t{x} * regions.channels);
            for (int n = 0; n < N; ++n) sum[n] = fmaf(weight, float(v[n]), sum[n]);
          }
        }
      }
  }
  if (!active) return;
  Vec<T, N> mean;
  for (int n = 0; n < N; ++n) mean[n] = T(sum[n]);
  store_vec(out + bin * regions.channels + channel, mean);
}

// Backward: a block for each tile of a map and part of the channels asks all regions, in order,
// which of them reach it, and adds their gradients in registers. Each pixel is written once, so
// neither a map in f32 nor clearing it is needed.

constexpr int kTile = 8;                   // pixels per side; a warp has one row of them
constexpr int kWeights = 2 * kTile * 256;  // of at least one region, whose size is 256 at most
static_assert(kTile == kWarps);
using Four = Vec<float, 4>;

template <typename T>
struct Tile {
  int level, image, y, x;  // y, x: its first pixel

  static MIXPL_DEVICE Tile of(const Pyramid<T>& pyramid, unsigned index) {
    Tile t;
    t.level = 0;
    while (t.level + 1 < pyramid.count && index >= pyramid.levels[t.level + 1].first_tile)
      ++t.level;
    const Level<T>& level = pyramid.levels[t.level];
    index -= level.first_tile;
    t.x = static_cast<int>(index % level.tiles_x) * kTile;
    index /= level.tiles_x;
    t.y = static_cast<int>(index % level.tiles_y) * kTile;
    t.image = static_cast<int>(index / level.tiles_y);
    return t;
  }
};

// Whether samples of the axis can touch pixels begin ... begin + kTile - 1.
MIXPL_DEVICE bool reaches(const RoiAxis& a, int size, int begin, int map) {
  const float other = a.start + static_cast<float>(size) * a.bin;
  const float slack = slack_of(a, size);
  const float low = lesser(a.start, other) - slack, high = greater(a.start, other) + slack;
  // What lies up to a pixel off the map counts as its edge, so a pixel more on either side.
  return a.samples > 0 && low - 1 <= static_cast<float>(begin + kTile - 1) &&
         high + 1 >= static_cast<float>(begin) && high >= -1 && low <= static_cast<float>(map);
}

// Blocks of a multiprocessor for which a thread's sums find registers.
template <int N>
constexpr int kBackwardBlocks = N == 8 ? 2 : (N == 4 ? 3 : 4);

template <int N, typename T>
MIXPL_KERNEL __launch_bounds__(kThreads, kBackwardBlocks<N>)
    backward_kernel(Pyramid<T> pyramid, Regions regions, const T* dout) {
  MIXPL_SHARED(int, reaching, kThreads);
  MIXPL_SHARED(Four, packed_weights, kWeights / 4);
  // [region][axis][bin][pixel of the tile]
  float* const weights = reinterpret_cast<float*>(packed_weights);
  const Tile<T> tile = Tile<T>::of(pyramid, blockIdx.x);
  const Level<T> level = pyramid.levels[tile.level];
  const int size = regions.o.size, channels = regions.channels;
  const int batch = kWeights / (2 * kTile * size);
  const int64_t channel = (int64_t{blockIdx.y} * 32 + lane()) * N;
  const bool active = channel < channels;
  float sum[kTile][N] = {};

  for (int first = 0; first < regions.count; first += kThreads) {
    const int r = first + static_cast<int>(threadIdx.x);
    const bool reach = r < regions.count && regions.places[2 * r] == tile.image &&
                       regions.places[2 * r + 1] == tile.level &&
                       regions.usable(r, pyramid.images, pyramid.count) &&
                       reaches(regions.rows(r, level), size, tile.y, level.height) &&
                       reaches(regions.columns(r, level), size, tile.x, level.width);
    int32_t found;
    const int32_t at = block_scan_exclusive(reach, &found);
    if (reach) reaching[at] = r;
    sync_block();
    for (int begin = 0; begin < found; begin += batch) {
      const int count = found - begin < batch ? found - begin : batch;
      for (int i = threadIdx.x; i < count * 2 * kTile * size; i += kThreads) {
        const int pixel = i % kTile, bin = i / kTile % size, axis = i / (kTile * size) % 2;
        const int region = reaching[begin + i / (2 * kTile * size)];
        weights[i] =
            axis == 0
                ? tap_weight(regions.rows(region, level), bin, tile.y + pixel, level.height)
                : tap_weight(regions.columns(region, level), bin, tile.x + pixel, level.width);
      }
      sync_block();
      for (int i = 0; i < count; ++i) {
        const float *rows = weights + i * 2 * kTile * size, *columns = rows + kTile * size;
        const T* d = dout + int64_t{reaching[begin + i]} * size * size * channels + channel;
        for (int by = 0; by < size; ++by) {
          const float share = rows[by * kTile + warp()];
          if (share == 0) continue;
          for (int bx = 0; bx < size; ++bx) {
            const Four left = load_vec<float, 4>(columns + bx * kTile),
                       right = load_vec<float, 4>(columns + bx * kTile + 4);
            float weight[kTile], largest = 0;
#pragma unroll
            for (int x = 0; x < kTile; ++x) {
              weight[x] = share * (x < 4 ? left[x % 4] : right[x % 4]);
              largest = greater(largest, weight[x]);
            }
            if (largest == 0 || !active) continue;
            const Vec<T, N> v = load_vec<T, N>(d + int64_t{by * size + bx} * channels);
#pragma unroll
            for (int x = 0; x < kTile; ++x)
              if (weight[x] != 0)
                for (int n = 0; n < N; ++n) sum[x][n] = fmaf(weight[x], float(v[n]), sum[x][n]);
          }
        }
      }
      sync_block();  // before the weights and the list are written again
    }
  }

  const int y = tile.y + warp();
  if (y >= level.height || !active) return;
  T* row = level.map +
           ((int64_t{tile.image} * level.height + y) * level.width + tile.x) * channels + channel;
#pragma unroll
  for (int x = 0; x < kTile; ++x) {
    if (tile.x + x >= level.width) continue;
    Vec<T, N> out;
    for (int n = 0; n < N; ++n) out[n] = T(sum[x][n]);
    store_vec(row + int64_t{x} * channels, out);
  }
}

// Tiles are counted for the levels that have a map.
template <typename T>
Pyramid<T> pyramid_of(const std::vector<Tensor>& levels, const std::vector<float>& scales) {
  Pyramid<T> p;
  int64_t tiles = 0;
  for (const Tensor& level : levels) {
    Level<T>& l = p.levels[p.count];
    l = {nullptr, 0, 0, scales[p.count], index_of(tiles), 1, 1};
    ++p.count;
    if (!level.defined()) continue;
    p.images = static_cast<int>(index_of(level.size(0)));
    l.map = level.data<std::remove_const_t<T>>();
    l.height = static_cast<int>(index_of(level.size(1)));
    l.width = static_cast<int>(index_of(level.size(2)));
    l.tiles_y = static_cast<unsigned>((l.height + kTile - 1) / kTile);
    l.tiles_x = static_cast<unsigned>((l.width + kTile - 1) / kTile);
    tiles += int64_t{l.tiles_x} * l.tiles_y * p.images;
  }
  p.tiles = index_of(tiles);
  return p;
}

unsigned channel_parts(int64_t channels, int pack) {
  return static_cast<unsigned>((channels + 32 * pack - 1) / (32 * pack));
}

}  // namespace

void roi_align_forward(const std::vector<Tensor>& levels, const std::vector<float>& scales,
                       const Tensor& boxes, const Tensor& places, const RoiAlignOptions& o,
                       Tensor& out) {
  const int64_t channels = out.size(3), bins = out.size(0) * o.size * o.size;
  dispatch_floating(out.dtype(), [&](auto tag) {
    using T = decltype(tag);
    with_packs<T>(channels, [&](auto pack) {
      constexpr int N = decltype(pack)::value;
      launch(forward_kernel<N, T>,
             dim3(index_of((bins + kWarps - 1) / kWarps), channel_parts(channels, N)), kThreads, 0,
             pyramid_of<const T>(levels, scales), regions_of(boxes, places, channels, o),
             out.data<T>());
    });
  });
}

void roi_align_backward(const Tensor& dout, const std::vector<float>& scales, const Tensor& boxes,
                        const Tensor& places, const RoiAlignOptions& o,
                        std::vector<Tensor>& dlevels) {
  const int64_t channels = dout.size(3);
  dispatch_floating(dout.dtype(), [&](auto tag) {
    using T = decltype(tag);
    with_packs<T>(channels, [&](auto pack) {
      constexpr int N = decltype(pack)::value;
      const Pyramid<T> pyramid = pyramid_of<T>(dlevels, scales);
      launch(backward_kernel<N, T>, dim3(pyramid.tiles, channel_parts(channels, N)), kThreads, 0,
             pyramid, regions_of(boxes, places, channels, o), dout.data<T>());
    });
  });
}

}  // namespace mixpl::cuda
