#include <cmath>

#include "core/parallel.h"
#include "ops/deform_sampling/deform_sampling.h"

namespace mixpl::cpu {
namespace {

// The four cells around a place: where they lie in the map (-1: outside) and how far it is from the
// first of them.
struct Corners {
  int64_t at[4];  // top left, top right, bottom left, bottom right
  float down, right;
  bool inside;
};

inline Corners corners_of(float y, float x, int64_t height, int64_t width) {
  Corners c{};
  c.inside = y > -1 && x > -1 && y < static_cast<float>(height) && x < static_cast<float>(width);
  if (!c.inside) return c;  // NaN too
  const int64_t top = static_cast<int64_t>(std::floor(y)),
                left = static_cast<int64_t>(std::floor(x));
  c.down = y - static_cast<float>(top);
  c.right = x - static_cast<float>(left);
  for (int i = 0; i < 4; ++i) {
    const int64_t row = top + i / 2, column = left + i % 2;
    const bool valid = row >= 0 && row < height && column >= 0 && column < width;
    c.at[i] = valid ? row * width + column : -1;
  }
  return c;
}

struct Map {
  int64_t height, width, channels;
  int64_t cells() const { return height * width; }
};

// f(corners, index into values and out, index into offsets of dy) for each cell of one image's
// channel; `plane` counts images and channels.
template <typename T, typename F>
void for_cells(const Map& m, const T* offsets, int64_t plane, F&& f) {
  const int64_t image = plane / m.channels, channel = plane % m.channels;
  for (int64_t cell = 0; cell < m.cells(); ++cell) {
    const int64_t i = (image * m.cells() + cell) * m.channels + channel;
    const float y = static_cast<float>(cell / m.width) + float(offsets[2 * i]),
                x = static_cast<float>(cell % m.width) + float(offsets[2 * i + 1]);
    f(corners_of(y, x, m.height, m.width), i, 2 * i);
  }
}

Map map_of(const Tensor& values) { return {values.size(1), values.size(2), values.size(3)}; }

}  // namespace

void deform_sampling_forward(const Tensor& values, const Tensor& offsets, Tensor& out) {
  const Map m = map_of(values);
  const float* in = values.data<float>();
  float* to = out.data<float>();
  dispatch_floating(offsets.dtype(), [&](auto tag) {
    const auto* d = offsets.data<decltype(tag)>();
    parallel_for(values.size(0) * m.channels, int64_t{1}, [&](int64_t plane) {
      const int64_t first = plane / m.channels * m.cells() * m.channels + plane % m.channels;
      for_cells(m, d, plane, [&](const Corners& c, int64_t i, int64_t) {
        float sum = 0;
        if (c.inside)
          for (int k = 0; k < 4; ++k)
            if (c.at[k] >= 0)
              sum += (k / 2 ? c.down : 1 - c.down) * (k % 2 ? c.right : 1 - c.right) *
                     in[first + c.at[k] * m.channels];
        to[i] = sum;
      });
    });
  });
}

void deform_sampling_backward(const Tensor& dout, const Tensor& values, const Tensor& offsets,
                              Tensor& dvalues, Tensor& doffsets) {
  const Map m = map_of(values);
  const float *d = dout.data<float>(), *in = values.data<float>();
  float* dv = dvalues.defined() ? dvalues.data<float>() : nullptr;
  dispatch_floating(offsets.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* shift = offsets.data<T>();
    T* ds = doffsets.defined() ? doffsets.data<T>() : nullptr;
    parallel_for(values.size(0) * m.channels, int64_t{1}, [&](int64_t plane) {
      const int64_t first = plane / m.channels * m.cells() * m.channels + plane % m.channels;
      for_cells(m, shift, plane, [&](const Corners& c, int64_t i, int64_t offset) {
        float dy = 0, dx = 0;
        if (c.inside)
          for (int k = 0; k < 4; ++k) {
            if (c.at[k] < 0) continue;
            const int64_t at = first + c.at[k] * m.channels;
            const float down = k / 2 ? c.down : 1 - c.down, right = k % 2 ? c.right : 1 - c.right;
            if (dv) dv[at] += d[i] * down * right;
            dy += (k / 2 ? right : -right) * in[at];
            dx += (k % 2 ? down : -down) * in[at];
          }
        if (ds) {
          ds[offset] = T(d[i] * dy);
          ds[offset + 1] = T(d[i] * dx);
        }
      });
    });
  });
}

}  // namespace mixpl::cpu
