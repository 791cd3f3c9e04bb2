#include <algorithm>
#include <limits>
#include <vector>

#include "core/math.h"
#include "core/parallel.h"
#include "core/simd.h"
#include "ops/deformable_attention/deformable_attention.h"
#include "ops/deformable_attention/deformable_attention_math.h"

namespace mixpl::cpu {
namespace {

using simd::f32x8;

constexpr int64_t kQueries = 16;  // worth a thread of their own

// A tensor of either type as f32, part by part.
void read_floats(const Tensor& from, int64_t begin, int64_t n, float* to) {
  dispatch_floating(from.dtype(), [&](auto tag) {
    simd::scale(from.data<decltype(tag)>() + begin, 1.0f, to, n);
  });
}
void write_floats(const float* from, int64_t begin, int64_t n, Tensor& to) {
  dispatch_floating(
      to.dtype(), [&](auto tag) { simd::scale(from, 1.0f, to.data<decltype(tag)>() + begin, n); });
}

float sum_of(f32x8 v) {
  v += __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3);
  v += __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5);
  return v[0] + v[1];
}

// The sums of four vectors.
void sums_of(const f32x8 (&v)[4], float (&sum)[4]) {
  const auto pairs = [](f32x8 a, f32x8 b) {
    return __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14) +
           __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
  };
  const f32x8 p = pairs(v[0], v[1]), q = pairs(v[2], v[3]);
  const f32x8 s = __builtin_shufflevector(p, q, 0, 1, 8, 9, 4, 5, 12, 13) +
                  __builtin_shufflevector(p, q, 2, 3, 10, 11, 6, 7, 14, 15);
  for (int k = 0; k < 4; ++k) sum[k] = s[k] + s[k + 4];
}

void softmax(float* x, int n) {
  float largest = -std::numeric_limits<float>::infinity();
  for (int i = 0; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  for (int i = 0; i < n; ++i) x[i] = exp_f32(x[i] - largest);
  f32x8 sums = {};
  int i = 0;
  for (; i + 8 <= n; i += 8) sums += simd::load(x + i);
  float sum = sum_of(sums);
  for (; i < n; ++i) sum += x[i];
  const float scale = 1 / sum;
  for (i = 0; i < n; ++i) x[i] *= scale;
}

// What a call reads.
struct Call {
  AttentionSizes s;
  const Tensor &offsets, &logits;
  const float *references, *ratios;

  int64_t rows() const { return s.images * s.queries; }
  int64_t channels() const { return int64_t{s.heads} * s.depth; }
  void frames_of(int64_t row, SampleFrame* frames) const {
    const float* ratio = ratios + row / s.queries * s.levels * 2;
    for (int l = 0; l < s.levels; ++l)
      frames[l] = sample_frame(s, s.level[l], references + row * s.coordinates, ratio + 2 * l);
  }
  // f(index of the sample, level, footprint) for the samples of levels first ... end - 1 of a head
  // that touch their map.
  template <typename F>
  void for_samples(const SampleFrame* frames, const float* offsets_of_head, int first, int end,
                   F&& f) const {
    for (int l = first; l < end; ++l)
      for (int p = 0; p < s.points; ++p) {
        const int i = l * s.points + p;
        const SampleFrame& frame = frames[l];
        const Footprint place =
            footprint_of(frame.x + offsets_of_head[2 * i] * frame.per_x,
                         frame.y + offsets_of_head[2 * i + 1] * frame.per_y, s.level[l]);
        if (place.corners) f(i, l, place);
      }
  }
};

// f(k, index of the cell among those of all levels) for the corners inside the map.
template <typename F>
void for_corners(const Footprint& place, const AttentionLevel& level, F&& f) {
  const int64_t cell = level.first + int64_t{place.top} * level.width + place.left;
  for (int k = 0; k < 4; ++k)
    if (place.corners >> k & 1) f(k, cell + k / 2 * level.width + k % 2);
}

// A cell that a head reads: where its channels begin, seen from those of the image's first cell.
struct Tap {
  int64_t at;
  float weight;
};

// 8 V channels of the taps' weighted sum.
template <int V, typename T>
void add_up(const Tap* taps, int64_t count, const T* values, T* out) {
  f32x8 sum[V] = {};
  for (int64_t i = 0; i < count; ++i) {
    const f32x8 weight = simd::splat(taps[i].weight);
    const T* cell = values + taps[i].at;
    for (int v = 0; v < V; ++v) sum[v] += weight * simd::load(cell + 8 * v);
  }
  for (int v = 0; v < V; ++v) simd::store(out + 8 * v, sum[v]);
}

template <typename T>
void forward(const Call& call, const T* value, T* out) {
  const AttentionSizes& s = call.s;
  const int64_t channels = call.channels(), samples = s.samples();
  parallel_chunks(call.rows(), kQueries, [&](int64_t begin, int64_t end) {
    std::vector<float> offsets(s.heads * samples * 2), weights(s.heads * samples);
    std::vector<Tap> taps(4 * samples);
    SampleFrame frames[kMostAttentionLevels];
    for (int64_t row = begin; row < end; ++row) {
      call.frames_of(row, frames);
      read_floats(call.offsets, row * s.heads * samples * 2, s.heads * samples * 2, offsets.data());
      read_floats(call.logits, row * s.heads * samples, s.heads * samples, weights.data());
      for (int64_t head = 0; head < s.heads; ++head) {
        float* weight = weights.data() + head * samples;
        softmax(weight, static_cast<int>(samples));
        int64_t count = 0;
        call.for_samples(frames, offsets.data() + head * samples * 2, 0, s.levels,
                         [&](int i, int l, const Footprint& place) {
                           for_corners(place, s.level[l], [&](int k, int64_t cell) {
                             taps[count++] = {cell * channels, weight[i] * share_of(place, k)};
                           });
                         });
        const T* from = value + row / s.queries * s.cells * channels + head * s.depth;
        T* to = out + row * channels + head * s.depth;
        int c = 0;
        for (; c + 32 <= s.depth; c += 32) add_up<4>(taps.data(), count, from + c, to + c);
        for (; c + 8 <= s.depth; c += 8) add_up<1>(taps.data(), count, from + c, to + c);
        for (; c < s.depth; ++c) {
          float sum = 0;
          for (int64_t i = 0; i < count; ++i) sum += taps[i].weight * float(from[taps[i].at + c]);
          to[c] = T(sum);
        }
      }
    }
  });
}

// The products of g with four rows of `depth` channels.
template <typename T>
void products(const T* const (&rows)[4], const float* g, int depth, float (&dot)[4]) {
  f32x8 sum[4] = {};
  int c = 0;
  for (; c + 8 <= depth; c += 8) {
    const f32x8 part = simd::load(g + c);
    for (int k = 0; k < 4; ++k) sum[k] += part * simd::load(rows[k] + c);
  }
  sums_of(sum, dot);
  for (; c < depth; ++c)
    for (int k = 0; k < 4; ++k) dot[k] += g[c] * float(rows[k][c]);
}

// Gradients of offsets, logits and references: all of a query's are its own.
template <typename T>
void query_gradients(const Call& call, const Tensor& dout, const T* value,
                     DeformableAttentionGradients& grads) {
  const AttentionSizes& s = call.s;
  const int64_t channels = call.channels(), samples = s.samples(), all = s.heads * samples;
  float* dreferences = grads.references.defined() ? grads.references.data<float>() : nullptr;
  parallel_chunks(call.rows(), kQueries, [&](int64_t begin, int64_t end) {
    std::vector<float> offsets(2 * all), weights(all), g(channels), doffsets(2 * all), dlogits(all);
    const std::vector<T> outside(s.depth, T(0.0f));
    SampleFrame frames[kMostAttentionLevels];
    for (int64_t row = begin; row < end; ++row) {
      call.frames_of(row, frames);
      read_floats(call.offsets, row * all * 2, all * 2, offsets.data());
      read_floats(call.logits, row * all, all, weights.data());
      read_floats(dout, row * channels, channels, g.data());
      std::fill(doffsets.begin(), doffsets.end(), 0.0f);
      std::fill(dlogits.begin(), dlogits.end(), 0.0f);
      float dreference[4] = {};
      for (int64_t head = 0; head < s.heads; ++head) {
        float *weight = weights.data() + head * samples, *dlogit = dlogits.data() + head * samples;
        const float* offset = offsets.data() + head * samples * 2;
        float* doffset = doffsets.data() + head * samples * 2;
        softmax(weight, static_cast<int>(samples));
        const T* from = value + row / s.queries * s.cells * channels + head * s.depth;
        float mean = 0;
        call.for_samples(frames, offset, 0, s.levels, [&](int i, int l, const Footprint& place) {
          const T* rows[4] = {outside.data(), outside.data(), outside.data(), outside.data()};
          for_corners(place, s.level[l],
                      [&](int k, int64_t cell) { rows[k] = from + cell * channels; });
          float dot[4];
          products(rows, g.data() + head * s.depth, s.depth, dot);
          const SampleTerms terms = sample_terms(place, dot);
          const float dx = weight[i] * terms.dx, dy = weight[i] * terms.dy;
          dlogit[i] = terms.value;
          mean += weight[i] * terms.value;
          doffset[2 * i] = dx * frames[l].per_x;
          doffset[2 * i + 1] = dy * frames[l].per_y;
          dreference[0] += dx * frames[l].by_x;
          dreference[1] += dy * frames[l].by_y;
          dreference[2] += dx * offset[2 * i] * frames[l].by_w;
          dreference[3] += dy * offset[2 * i + 1] * frames[l].by_h;
        });
        for (int64_t i = 0; i < samples; ++i) dlogit[i] = weight[i] * (dlogit[i] - mean);
      }
      if (grads.offsets.defined())
        write_floats(doffsets.data(), row * all * 2, all * 2, grads.offsets);
      if (grads.logits.defined()) write_floats(dlogits.data(), row * all, all, grads.logits);
      if (dreferences) std::copy_n(dreference, s.coordinates, dreferences + row * s.coordinates);
    }
  });
}

void add_scaled(const float* g, float weight, int depth, float* to) {
  const f32x8 w = simd::splat(weight);
  int c = 0;
  for (; c + 8 <= depth; c += 8) simd::store(to + c, simd::load(to + c) + w * simd::load(g + c));
  for (; c < depth; ++c) to[c] += weight * g[c];
}

// Queries add to cells, so a thread takes all of an image's for one head, in order; where there are
// fewer heads than threads, of one level only. A cell's order of sums is the same either way.
void value_gradient(const Call& call, const Tensor& dout, Tensor& dvalue) {
  const AttentionSizes& s = call.s;
  const int64_t channels = call.channels(), samples = s.samples(), planes = s.images * s.heads;
  const int64_t parts = planes >= num_threads() ? 1 : s.levels;
  parallel_for(planes * parts, int64_t{1}, [&](int64_t task) {
    const int64_t plane = task / parts, image = plane / s.heads, head = plane % s.heads;
    const int first = parts == 1 ? 0 : static_cast<int>(task % parts),
              end = parts == 1 ? s.levels : first + 1;
    const int64_t first_cell = s.level[first].first,
                  end_cell = end == s.levels ? s.cells : s.level[end].first;
    std::vector<float> sums((end_cell - first_cell) * s.depth, 0.0f);
    std::vector<float> offsets(2 * samples), weights(samples), g(s.depth);
    SampleFrame frames[kMostAttentionLevels];
    for (int64_t row = image * s.queries; row < (image + 1) * s.queries; ++row) {
      const int64_t at = row * s.heads + head;
      call.frames_of(row, frames);
      read_floats(call.offsets, at * samples * 2, samples * 2, offsets.data());
      read_floats(call.logits, at * samples, samples, weights.data());
      read_floats(dout, at * s.depth, s.depth, g.data());
      softmax(weights.data(), static_cast<int>(samples));
      call.for_samples(frames, offsets.data(), first, end,
                       [&](int i, int l, const Footprint& place) {
                         for_corners(place, s.level[l], [&](int k, int64_t cell) {
                           add_scaled(g.data(), weights[i] * share_of(place, k), s.depth,
                                      sums.data() + (cell - first_cell) * s.depth);
                         });
                       });
    }
    for (int64_t cell = first_cell; cell < end_cell; ++cell)
      write_floats(sums.data() + (cell - first_cell) * s.depth,
                   (image * s.cells + cell) * channels + head * s.depth, s.depth, dvalue);
  });
}

Call call_of(const Tensor& value, const std::vector<MapSize>& maps, const Tensor& offsets,
             const Tensor& logits, const Tensor& references, const Tensor& ratios, int64_t heads) {
  return {attention_sizes(value, maps, offsets, references, heads), offsets, logits,
          references.data<float>(), ratios.data<float>()};
}

}  // namespace

void deformable_attention_forward(const Tensor& value, const std::vector<MapSize>& maps,
                                  const Tensor& offsets, const Tensor& logits,
                                  const Tensor& references, const Tensor& ratios, int64_t heads,
                                  Tensor& out) {
  const Call call = call_of(value, maps, offsets, logits, references, ratios, heads);
  dispatch_floating(value.dtype(), [&](auto tag) {
    using T = decltype(tag);
    forward(call, value.data<T>(), out.data<T>());
  });
}

void deformable_attention_backward(const Tensor& dout, const Tensor& value,
                                   const std::vector<MapSize>& maps, const Tensor& offsets,
                                   const Tensor& logits, const Tensor& references,
                                   const Tensor& ratios, int64_t heads,
                                   DeformableAttentionGradients& grads) {
  const Call call = call_of(value, maps, offsets, logits, references, ratios, heads);
  if (grads.offsets.defined() || grads.logits.defined() || grads.references.defined())
    dispatch_floating(value.dtype(), [&](auto tag) {
      using T = decltype(tag);
      query_gradients(call, dout, value.data<T>(), grads);
    });
  if (grads.value.defined()) value_gradient(call, dout, grads.value);
}

}  // namespace mixpl::cpu
