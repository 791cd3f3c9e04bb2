#include "core/parallel.h"
#include "core/simd.h"
#include "core/tensor_values.h"

namespace mixpl::cpu {

void fill_values(const Tensor& t, float value) {
  const int64_t n = t.numel();
  switch (t.dtype()) {
    case DType::f32:
      std::fill_n(t.data<float>(), n, value);
      break;
    case DType::bf16:
      std::fill_n(t.data<bfloat16>(), n, bfloat16(value));
      break;
    case DType::i32:
      std::fill_n(t.data<int32_t>(), n, static_cast<int32_t>(value));
      break;
    case DType::i64:
      std::fill_n(t.data<int64_t>(), n, static_cast<int64_t>(value));
      break;
    case DType::u8:
      std::fill_n(t.data<uint8_t>(), n, static_cast<uint8_t>(value));
      break;
  }
}

void zero_values(const Tensor& t) { std::memset(t.raw(), 0, t.nbytes()); }

void copy_values(const Tensor& from, const Tensor& to) {
  const auto* in = static_cast<const char*>(from.raw());
  auto* out = static_cast<char*>(to.raw());
  parallel_chunks(from.nbytes(), 1 << 20, [&](int64_t begin, int64_t end) {
    std::memcpy(out + begin, in + begin, end - begin);
  });
}

void cast_values(const Tensor& from, const Tensor& to) {
  dispatch_floating(from.dtype(), [&](auto source) {
    dispatch_floating(to.dtype(), [&](auto target) {
      const auto* in = from.data<decltype(source)>();
      auto* out = to.data<decltype(target)>();
      parallel_chunks(from.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
        simd::scale(in + begin, 1, out + begin, end - begin);
      });
    });
  });
}

void add_values(const Tensor& from, const Tensor& to) {
  dispatch_floating(to.dtype(), [&](auto target) {
    dispatch_floating(from.dtype(), [&](auto source) {
      auto* out = to.data<decltype(target)>();
      const auto* in = from.data<decltype(source)>();
      parallel_chunks(to.numel(), 1 << 14, [&](int64_t begin, int64_t end) {
        int64_t i = begin;
        for (; i + 8 <= end; i += 8) simd::store(out + i, simd::load(out + i) + simd::load(in + i));
        for (; i < end; ++i) out[i] = decltype(target)(float(out[i]) + float(in[i]));
      });
    });
  });
}

void write_values(const Tensor& t, const void* values) { std::memcpy(t.raw(), values, t.nbytes()); }
void read_values(const Tensor& t, void* values) { std::memcpy(values, t.raw(), t.nbytes()); }

void gather_scalars(const std::vector<Tensor>& scalars, const Tensor& out, int64_t at) {
  float* values = out.data<float>() + at;
  for (size_t i = 0; i < scalars.size(); ++i) values[i] = *scalars[i].data<float>();
}

}  // namespace mixpl::cpu
