#pragma once

#include <vector>

#include "core/launch.h"
#include "optim/flat_table.h"

namespace mixpl {

/// A teacher's tensor and its student's, as loops over the elements see them.
struct EmaRow {
  float* teacher;
  const float* student;
  int64_t numel;
};
using EmaTable = FlatTable<EmaRow>;

/// teacher = (1 - momentum) teacher + momentum student, for all pairs of f32 tensors on one device;
/// momentum 1 copies, 0 changes nothing. A `table` that is kept for a set of tensors saves
/// describing them to a GPU again.
/// @throws ShapeError, DTypeError, DeviceError, RangeError, before anything was changed
void ema_update(const std::vector<Tensor>& teacher, const std::vector<Tensor>& student,
                double momentum, EmaTable& table);
void ema_update(const std::vector<Tensor>& teacher, const std::vector<Tensor>& student,
                double momentum);

MIXPL_HD float ema_element(float teacher, float student, float keep, float share) {
  return keep * teacher + share * student;
}

namespace cpu {
/// keep 0 copies.
void ema_update(EmaTable& table, Device device, float keep, float share);
}  // namespace cpu
namespace cuda {
void ema_update(EmaTable& table, Device device, float keep, float share);
}  // namespace cuda

}  // namespace mixpl
