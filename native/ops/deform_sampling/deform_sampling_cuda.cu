#include <bit>
#include <cmath>
#include <limits>

#include "core/cuda/packs.h"
#include "ops/deform_sampling/deform_sampling.h"
#include "ops/deform_sampling/deform_sampling_math.h"

namespace mixpl::cuda {
namespace {

using Count = unsigned long long;

// Where one value reads: value i is channel c of a cell of an image.
template <typename T>
struct Places {
  const T* offsets;
  Divider channels, width, height;

  struct Place {
    Corners corners;
    int64_t plane;  // index of the channel's first cell of the image
  };
  MIXPL_DEVICE Place of(uint32_t i) const {
    uint32_t c = i, x = channels.split(c), y = width.split(x);
    const uint32_t image = height.split(y);
    const float down = float(offsets[2 * int64_t{i}]), right = float(offsets[2 * int64_t{i} + 1]);
    const int64_t cells = int64_t{height.divisor()} * width.divisor();
    return {corners_of(static_cast<float>(y) + down, static_cast<float>(x) + right,
                       height.divisor(), width.divisor()),
            image * cells * channels.divisor() + c};
  }
};

template <typename T>
Places<T> places_of(const Tensor& values, const Tensor& offsets) {
  index_of(values.numel());
  return {offsets.data<T>(), Divider(values.size(3)), Divider(values.size(2)),
          Divider(values.size(1))};
}

template <typename T>
struct Forward {
  Places<T> places;
  const float* values;
  float* out;
  MIXPL_DEVICE void operator()(int64_t i) const {
    const auto place = places.of(static_cast<uint32_t>(i));
    out[i] = sample_of(place.corners, values + place.plane, places.channels.divisor());
  }
};

template <typename T>
struct OffsetGradient {
  Places<T> places;
  const float *values, *dout;
  T* doffsets;
  MIXPL_DEVICE void operator()(int64_t i) const {
    const auto place = places.of(static_cast<uint32_t>(i));
    const SampleSlopes slopes =
        sample_slopes(place.corners, values + place.plane, places.channels.divisor());
    doffsets[2 * i] = T(dout[i] * slopes.dy);
    doffsets[2 * i + 1] = T(dout[i] * slopes.dx);
  }
};

// Which values read a cell is known only to them, so they add to it, in whatever order. The sums are
// integers in units of 2^-scale of the largest gradient, so the order cannot show: with 2^15 cells
// a unit is 2^-46 of it. What is not finite is marked instead and makes NaN.

struct LargestGradient {
  const float* dout;
  unsigned* bits;  // of the largest finite |dout|: they rise as the numbers do
  MIXPL_DEVICE void operator()(int64_t i) const {
    const unsigned own = std::bit_cast<unsigned>(dout[i]) & 0x7fffffffu;
    if (own < 0x7f800000u && own > *bits) atomic_max(bits, own);
  }
};

struct FixedPoint {
  const unsigned* bits;
  int spare;  // bits that sums need above a single gradient
  /// Units of one: a power of 2, so that scaling rounds nothing.
  MIXPL_DEVICE double units() const {
    const int exponent = static_cast<int>(*bits >> 23) - 126;  // the largest is below 2^exponent
    return ldexp(1.0, 62 - spare - exponent);
  }
};

template <typename T>
struct Scatter {
  Places<T> places;
  FixedPoint fixed;
  const float* dout;
  Count* sums;
  int* broken;
  MIXPL_DEVICE void operator()(int64_t i) const {
    const auto place = places.of(static_cast<uint32_t>(i));
    const Corners& c = place.corners;
    if (!c.inside) return;
    const double units = fixed.units();
    for (int k = 0; k < 4; ++k) {
      if (c.at[k] < 0) continue;
      const int64_t at = place.plane + c.at[k] * places.channels.divisor();
      const float part = dout[i] * c.share_down(k) * c.share_right(k);
      if (fabsf(part) < std::numeric_limits<float>::infinity())
        atomic_add(sums + at, static_cast<Count>(llrint(part * units)));
      else
        atomic_or(broken + at, 1);
    }
  }
};

struct ToFloat {
  FixedPoint fixed;
  const Count* sums;
  const int* broken;
  float* dvalues;
  MIXPL_DEVICE void operator()(int64_t i) const {
    const double sum = static_cast<double>(static_cast<long long>(sums[i])) / fixed.units();
    dvalues[i] = broken[i] ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(sum);
  }
};

template <typename T>
void value_gradient(const Places<T>& places, const Tensor& dout, Tensor& dvalues) {
  const int64_t n = dvalues.numel(), cells = dvalues.size(1) * dvalues.size(2);
  const Tensor memory = scratch(n * int64_t{sizeof(Count) + sizeof(int)} + int64_t{sizeof(unsigned)});
  memset_device(memory.raw(), 0, memory.nbytes());
  auto* sums = static_cast<Count*>(memory.raw());
  auto* broken = reinterpret_cast<int*>(sums + n);
  auto* bits = reinterpret_cast<unsigned*>(broken + n);
  FixedPoint fixed{bits, 0};
  while ((int64_t{1} << fixed.spare) < cells) ++fixed.spare;
  for_each(n, LargestGradient{dout.data<float>(), bits});
  for_each(n, Scatter<T>{places, fixed, dout.data<float>(), sums, broken});
  for_each(n, ToFloat{fixed, sums, broken, dvalues.data<float>()});
}

}  // namespace

void deform_sampling_forward(const Tensor& values, const Tensor& offsets, Tensor& out) {
  dispatch_floating(offsets.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_each(values.numel(), Forward<T>{places_of<T>(values, offsets), values.data<float>(),
                                        out.data<float>()});
  });
}

void deform_sampling_backward(const Tensor& dout, const Tensor& values, const Tensor& offsets,
                              Tensor& dvalues, Tensor& doffsets) {
  dispatch_floating(offsets.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const Places<T> places = places_of<T>(values, offsets);
    if (dvalues.defined()) value_gradient(places, dout, dvalues);
    if (doffsets.defined())
      for_each(values.numel(), OffsetGradient<T>{places, values.data<float>(), dout.data<float>(),
                                                 doffsets.data<T>()});
  });
}

}  // namespace mixpl::cuda
