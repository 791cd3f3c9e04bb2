#include "core/parallel.h"
#include "ops/deform_sampling/deform_sampling.h"
#include "ops/deform_sampling/deform_sampling_math.h"

namespace mixpl::cpu {
namespace {

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
        to[i] = sample_of(c, in + first, m.channels);
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
        if (dv && c.inside)
          for (int k = 0; k < 4; ++k)
            if (c.at[k] >= 0)
              dv[first + c.at[k] * m.channels] += d[i] * c.share_down(k) * c.share_right(k);
        if (ds) {
          const SampleSlopes slopes = sample_slopes(c, in + first, m.channels);
          ds[offset] = T(d[i] * slopes.dy);
          ds[offset + 1] = T(d[i] * slopes.dx);
        }
      });
    });
  });
}

}  // namespace mixpl::cpu
