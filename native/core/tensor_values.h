// What Tensor does with its values, per device. `to`/`from` have the same shape and device.
#pragma once

#include "core/tensor.h"

namespace mixpl {

/// The values of f32 scalars that lie on one device, with one wait for it. @throws ShapeError,
/// DTypeError, DeviceError
std::vector<float> read_scalars(const std::vector<Tensor>& scalars);
/// The same into out[at + i], f32 on their device, without a wait. @throws as read_scalars
void gather_scalars(const std::vector<Tensor>& scalars, const Tensor& out, int64_t at);

namespace cpu {
void fill_values(const Tensor& t, float value);
void zero_values(const Tensor& t);
void copy_values(const Tensor& from, const Tensor& to);
void cast_values(const Tensor& from, const Tensor& to);
/// to += from, both floating; adds in f32.
void add_values(const Tensor& from, const Tensor& to);
/// From and to host memory. write_values may return before the values are there, but not before
/// `values` was read; read_values waits.
void write_values(const Tensor& t, const void* values);
void read_values(const Tensor& t, void* values);
void gather_scalars(const std::vector<Tensor>& scalars, const Tensor& out, int64_t at);
}  // namespace cpu
namespace cuda {
void fill_values(const Tensor& t, float value);
void zero_values(const Tensor& t);
void copy_values(const Tensor& from, const Tensor& to);
void cast_values(const Tensor& from, const Tensor& to);
void add_values(const Tensor& from, const Tensor& to);
void write_values(const Tensor& t, const void* values);
void read_values(const Tensor& t, void* values);
void gather_scalars(const std::vector<Tensor>& scalars, const Tensor& out, int64_t at);
}  // namespace cuda
}  // namespace mixpl
