#include <algorithm>

#include "core/parallel.h"
#include "core/part.h"
#include "core/simd.h"
#include "core/tensor_values.h"
#include "ops/roi_align/roi_align.h"
#include "ops/roi_align/roi_align_math.h"

namespace mixpl::cpu {
namespace {

using simd::f32x8;

// Bilinear weights of a bin's samples along one axis, equal positions put together. The mean over
// the samples is the product of the two axes' taps.
struct Taps {
  std::vector<int> first;     // per bin, where its taps begin; one more at the end
  std::vector<int> position;  // on the map
  std::vector<float> weight;
};

void make_taps(const RoiAxis& axis, int bins, int64_t size, Taps& taps) {
  taps.first.assign(1, 0);
  taps.position.clear();
  taps.weight.clear();
  const float share = axis.samples > 0 ? 1.0f / static_cast<float>(axis.samples) : 0.0f;
  for (int b = 0; b < bins; ++b) {
    const size_t begin = taps.position.size();
    const auto add = [&](int at, float w) {
      if (w == 0) return;
      // Samples of a bin rise, so a position that was met is among the last two.
      for (size_t k = taps.position.size(); k > begin && k + 2 > taps.position.size(); --k)
        if (taps.position[k - 1] == at) {
          taps.weight[k - 1] += w;
          return;
        }
      taps.position.push_back(at);
      taps.weight.push_back(w);
    };
    for (int s = 0; s < axis.samples; ++s) {
      const RoiSample sample = roi_sample(axis, b, s, size);
      if (!sample.inside) continue;
      add(sample.low, share * (1.0f - sample.part));
      add(sample.low + 1, share * sample.part);
    }
    taps.first.push_back(static_cast<int>(taps.position.size()));
  }
}

// The taps of one region on its level.
struct Region {
  Taps rows, columns;

  void place(const Box& box, float scale, int64_t height, int64_t width, const RoiAlignOptions& o) {
    make_taps(roi_axis(box.y1, box.y2, scale, height, o), o.size, height, rows);
    make_taps(roi_axis(box.x1, box.x2, scale, width, o), o.size, width, columns);
  }
};

// out[c] = sum over the taps of one bin, kLanes x 8 channels at a time.
template <int kLanes, typename T>
void gather(const T* map, int64_t row_stride, int64_t channels, const Taps& rows, int by,
            const Taps& columns, int bx, int64_t c, T* out) {
  f32x8 sum[kLanes] = {};
  for (int r = rows.first[by]; r < rows.first[by + 1]; ++r) {
    const T* row = map + rows.position[r] * row_stride + c;
    for (int k = columns.first[bx]; k < columns.first[bx + 1]; ++k) {
      const f32x8 w = simd::splat(rows.weight[r] * columns.weight[k]);
      const T* p = row + columns.position[k] * channels;
      for (int l = 0; l < kLanes; ++l) sum[l] += w * simd::load(p + 8 * l);
    }
  }
  for (int l = 0; l < kLanes; ++l) simd::store(out + c + 8 * l, sum[l]);
}

template <typename T>
void gather_one(const T* map, int64_t row_stride, int64_t channels, const Taps& rows, int by,
                const Taps& columns, int bx, int64_t c, T* out) {
  float sum = 0;
  for (int r = rows.first[by]; r < rows.first[by + 1]; ++r)
    for (int k = columns.first[bx]; k < columns.first[bx + 1]; ++k)
      sum += rows.weight[r] * columns.weight[k] *
             float(map[rows.position[r] * row_stride + columns.position[k] * channels + c]);
  out[c] = T(sum);
}

// map[tap] += weight * d over channels [begin, end), in f32.
template <typename T>
void scatter(float* map, int64_t row_stride, int64_t channels, const Taps& rows, int by,
             const Taps& columns, int bx, int64_t begin, int64_t end, const T* d) {
  for (int r = rows.first[by]; r < rows.first[by + 1]; ++r)
    for (int k = columns.first[bx]; k < columns.first[bx + 1]; ++k) {
      const float weight = rows.weight[r] * columns.weight[k];
      const f32x8 w = simd::splat(weight);
      float* p = map + rows.position[r] * row_stride + columns.position[k] * channels;
      int64_t c = begin;
      for (; c + 8 <= end; c += 8) simd::store(p + c, simd::load(p + c) + w * simd::load(d + c));
      for (; c < end; ++c) p[c] += weight * float(d[c]);
    }
}

}  // namespace

void roi_align_forward(const std::vector<Tensor>& levels, const std::vector<float>& scales,
                       const Tensor& boxes, const Tensor& places, const RoiAlignOptions& o,
                       Tensor& out) {
  const Box* box = reinterpret_cast<const Box*>(boxes.data<float>());
  const int32_t* place = places.data<int32_t>();
  const int64_t channels = levels[0].size(3);
  dispatch_floating(out.dtype(), [&](auto tag) {
    using T = decltype(tag);
    parallel_chunks(boxes.size(0), 4, [&](int64_t begin, int64_t end) {
      Region region;
      for (int64_t i = begin; i < end; ++i) {
        const Tensor& level = levels[place[2 * i + 1]];
        const int64_t height = level.size(1), width = level.size(2), stride = width * channels;
        T* bin = out.data<T>() + i * o.size * o.size * channels;
        if (height == 0 || width == 0) {
          std::fill_n(bin, o.size * o.size * channels, T(0.0f));
          continue;
        }
        region.place(box[i], scales[place[2 * i + 1]], height, width, o);
        const T* map = level.data<T>() + place[2 * i] * height * stride;
        for (int y = 0; y < o.size; ++y)
          for (int x = 0; x < o.size; ++x, bin += channels) {
            int64_t c = 0;
            for (; c + 64 <= channels; c += 64)
              gather<8>(map, stride, channels, region.rows, y, region.columns, x, c, bin);
            for (; c + 8 <= channels; c += 8)
              gather<1>(map, stride, channels, region.rows, y, region.columns, x, c, bin);
            for (; c < channels; ++c)
              gather_one(map, stride, channels, region.rows, y, region.columns, x, c, bin);
          }
      }
    });
  });
}

void roi_align_backward(const Tensor& dout, const std::vector<float>& scales, const Tensor& boxes,
                        const Tensor& places, const RoiAlignOptions& o,
                        std::vector<Tensor>& dlevels) {
  const Box* box = reinterpret_cast<const Box*>(boxes.data<float>());
  const int32_t* place = places.data<int32_t>();
  const int64_t channels = dout.size(-1);
  const bool narrow = dout.dtype() != DType::f32;
  std::vector<int64_t> mine;  // boxes of one image on one level, in order
  for (size_t l = 0; l < dlevels.size(); ++l) {
    if (!dlevels[l].defined() || dlevels[l].numel() == 0) continue;
    const int64_t height = dlevels[l].size(1), width = dlevels[l].size(2),
                  stride = width * channels;
    const Shape shape{height, width, channels};
    Tensor wide = narrow ? Tensor::empty(shape, DType::f32) : Tensor();
    for (int64_t n = 0; n < dlevels[l].size(0); ++n) {
      const Tensor part =
          part_of(dlevels[l], n * height * stride * size_of(dout.dtype()), shape, dout.dtype());
      const Tensor& sum = narrow ? wide : part;
      zero_values(sum);
      mine.clear();
      for (int64_t i = 0; i < boxes.size(0); ++i)
        if (place[2 * i] == n && place[2 * i + 1] == static_cast<int32_t>(l)) mine.push_back(i);
      dispatch_floating(dout.dtype(), [&](auto tag) {
        using T = decltype(tag);
        // Each thread has channels of its own and goes through all boxes: sums are in their order.
        constexpr int64_t kLine = 16;
        parallel_chunks((channels + kLine - 1) / kLine, 1, [&](int64_t first, int64_t last) {
          const int64_t begin = first * kLine, end = std::min(channels, last * kLine);
          Region region;
          for (const int64_t i : mine) {
            region.place(box[i], scales[l], height, width, o);
            const T* d = dout.data<T>() + i * o.size * o.size * channels;
            for (int y = 0; y < o.size; ++y)
              for (int x = 0; x < o.size; ++x, d += channels)
                scatter(sum.data<float>(), stride, channels, region.rows, y, region.columns, x,
                        begin, end, d);
          }
        });
      });
      if (narrow) cast_values(wide, part);
    }
  }
}

}  // namespace mixpl::cpu
