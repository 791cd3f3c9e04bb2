// How far an encoding is drawn out, once for both devices.
#pragma once

#include "core/tensor.h"
#include "ops/sigmoid/sigmoid_math.h"

namespace mixpl {

/// Factor of the half of one axis: sigmoid(logit) / side.
MIXPL_HD float modulation(float logit, float side) { return sigmoids(logit).p / side; }

struct ModulationSlopes {
  float dlogit, dside;
};
/// @param dfactor gradient of the factor: the sum over the half of dy * encoding * scale
MIXPL_HD ModulationSlopes modulation_slopes(float logit, float side, float dfactor) {
  const Sigmoids s = sigmoids(logit);
  const float share = dfactor / side;
  return {share * s.p * s.q, -share * (s.p / side)};
}

/// Pointers to what the op takes and gives; null: not there, or not wanted.
template <typename T>
struct ModulationView {
  const T *encoding, *sizes, *scale;
  const float* boxes;
  int64_t rows, channels;  // C

  /// Factor of y's half, which comes first, and of x's.
  MIXPL_HD float factor_y(int64_t row) const {
    return modulation(float(sizes[2 * row + 1]), boxes[4 * row + 3]);
  }
  MIXPL_HD float factor_x(int64_t row) const {
    return modulation(float(sizes[2 * row]), boxes[4 * row + 2]);
  }
  /// From the gradients of the two factors.
  MIXPL_HD void put_slopes(int64_t row, float dy_half, float dx_half, T* dsizes,
                           float* dboxes) const {
    const ModulationSlopes h =
        modulation_slopes(float(sizes[2 * row + 1]), boxes[4 * row + 3], dy_half);
    const ModulationSlopes w =
        modulation_slopes(float(sizes[2 * row]), boxes[4 * row + 2], dx_half);
    if (dsizes) {
      dsizes[2 * row] = T(w.dlogit);
      dsizes[2 * row + 1] = T(h.dlogit);
    }
    if (dboxes) {
      dboxes[4 * row] = dboxes[4 * row + 1] = 0;
      dboxes[4 * row + 2] = w.dside;
      dboxes[4 * row + 3] = h.dside;
    }
  }
};

template <typename T>
ModulationView<T> modulation_view(const Tensor& encoding, const Tensor& sizes, const Tensor& boxes,
                                  const Tensor& scale) {
  return {encoding.data<T>(),
          sizes.data<T>(),
          scale.defined() ? scale.data<T>() : nullptr,
          boxes.data<float>(),
          encoding.size(0) * encoding.size(1),
          encoding.size(2) / 2};
}

}  // namespace mixpl
