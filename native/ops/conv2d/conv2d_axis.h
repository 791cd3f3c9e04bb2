// Convolutions seen along one axis: which positions of a source a position of the result gathers.
#pragma once

#include <algorithm>
#include <numeric>

#include "core/launch.h"

namespace mixpl {

/// Position i in [0, positions) of a result, which is its element `out_first + i out_every`, sums
/// over taps t in [0, taps): source element i stride + origin + t step (nothing where the source
/// has none) times filter element filter_first + t filter_every.
struct ConvAxis {
  int positions, taps;
  int stride, origin, step;
  int filter_first, filter_every;
  int out_first, out_every;

  /// Where the first position's lowest tap is, and how far above it tap t lies.
  MIXPL_HD int lower() const { return step < 0 ? origin + (taps - 1) * step : origin; }
  MIXPL_HD int offset(int t) const { return step < 0 ? (t - (taps - 1)) * step : t * step; }
  int reach() const { return (taps - 1) * (step < 0 ? -step : step); }
  /// How far beyond the last element of a source of `size` the last position's lowest tap is.
  int upper(int size) const { return (positions - 1) * stride + lower() - (size - 1); }
};

/// The convolution itself: all of the result.
inline ConvAxis forward_axis(int out, int kernel, int stride, int padding, int dilation) {
  return {out, kernel, stride, -padding, dilation, 0, 1, 0, 1};
}

/// The gradient of the source, for its positions h = residue (mod stride): these gather the same
/// taps, so that no tap is visited in vain. Tap r and output p meet where
/// p stride - padding + r dilation = h.
MIXPL_HD ConvAxis gradient_axis(int size, int kernel, int stride, int padding, int dilation,
                                int residue) {
  ConvAxis axis{};
  axis.positions = (size - residue + stride - 1) / stride;
  axis.stride = 1;
  axis.out_first = residue;
  axis.out_every = stride;
  // dilation r = residue + padding (mod stride): every (stride / gcd)-th tap, or none.
  int first = 0;
  while (first < kernel && (residue + padding - first * dilation) % stride != 0) ++first;
  int a = stride, b = dilation;  // the greatest common divisor ends up in a
  while (b != 0) {
    const int rest = a % b;
    a = b;
    b = rest;
  }
  axis.filter_first = first;
  axis.filter_every = stride / a;
  axis.taps = (kernel - first + axis.filter_every - 1) / axis.filter_every;
  axis.origin = (residue + padding - first * dilation) / stride;
  axis.step = -(dilation / a);
  return axis;
}

/// A number in a mixed radix, most significant digit first: the two lower digits have fixed sizes.
/// Adding is one carry a digit, where decoding takes two divisions.
struct Digits {
  int high, middle, low;
};
struct Radix {
  int middle, low;  // sizes; one where there is nothing to count

  MIXPL_HD Radix(int middle_size, int low_size)
      : middle(middle_size < 1 ? 1 : middle_size), low(low_size < 1 ? 1 : low_size) {}
  MIXPL_HD Digits digits(int number) const {
    const int rest = number / low;
    return {rest / middle, rest % middle, number % low};
  }
  MIXPL_HD void add(Digits& to, const Digits& other) const {
    to.low += other.low;
    const int low_carry = to.low >= low;
    to.low -= low_carry ? low : 0;
    to.middle += other.middle + low_carry;
    const int middle_carry = to.middle >= middle;
    to.middle -= middle_carry ? middle : 0;
    to.high += other.high + middle_carry;
  }
};

}  // namespace mixpl
