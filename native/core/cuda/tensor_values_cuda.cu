#include "core/cuda/kernel.h"
#include "core/tensor_values.h"

namespace mixpl::cuda {
namespace {

template <typename T>
struct FillView {
  T* out;
  T value;
  MIXPL_DEVICE void operator()(int64_t i) const { out[i] = value; }
};

template <typename T>
void fill_with(const Tensor& t, T value) {
  for_each(t.numel(), FillView<T>{t.data<T>(), value});
}

template <typename From, typename To>
struct CastView {
  const From* in;
  To* out;
  MIXPL_DEVICE void operator()(int64_t i) const { out[i] = To(float(in[i])); }
};

template <typename From, typename To>
struct AddView {
  const From* in;
  To* out;
  MIXPL_DEVICE void operator()(int64_t i) const { out[i] = To(float(out[i]) + float(in[i])); }
};

// Addresses travel with the launch: more scalars take several.
constexpr int64_t kScalarsAtOnce = 64;

struct GatherView {
  const float* scalars[kScalarsAtOnce];
  float* out;
  MIXPL_DEVICE void operator()(int64_t i) const { out[i] = *scalars[i]; }
};

}  // namespace

void fill_values(const Tensor& t, float value) {
  switch (t.dtype()) {
    case DType::f32:
      return fill_with(t, value);
    case DType::bf16:
      return fill_with(t, bfloat16(value));
    case DType::i32:
      return fill_with(t, static_cast<int32_t>(value));
    case DType::i64:
      return fill_with(t, static_cast<int64_t>(value));
    case DType::u8:
      return fill_with(t, static_cast<uint8_t>(value));
  }
}

void zero_values(const Tensor& t) { memset_device(t.raw(), 0, t.nbytes()); }

void copy_values(const Tensor& from, const Tensor& to) {
  copy_on_device(to.raw(), from.raw(), from.nbytes());
}

void cast_values(const Tensor& from, const Tensor& to) {
  dispatch_floating(from.dtype(), [&](auto source) {
    dispatch_floating(to.dtype(), [&](auto target) {
      using From = decltype(source);
      using To = decltype(target);
      for_each(from.numel(), CastView<From, To>{from.data<From>(), to.data<To>()});
    });
  });
}

void add_values(const Tensor& from, const Tensor& to) {
  dispatch_floating(from.dtype(), [&](auto source) {
    dispatch_floating(to.dtype(), [&](auto target) {
      using From = decltype(source);
      using To = decltype(target);
      for_each(from.numel(), AddView<From, To>{from.data<From>(), to.data<To>()});
    });
  });
}

void write_values(const Tensor& t, const void* values) {
  copy_to_device(t.raw(), values, t.nbytes());
}
void gather_scalars(const std::vector<Tensor>& scalars, const Tensor& out, int64_t at) {
  const int64_t count = static_cast<int64_t>(scalars.size());
  for (int64_t first = 0; first < count; first += kScalarsAtOnce) {
    const int64_t n = std::min(kScalarsAtOnce, count - first);
    GatherView view = {};
    for (int64_t i = 0; i < n; ++i) view.scalars[i] = scalars[first + i].data<float>();
    view.out = out.data<float>() + at + first;
    for_each(n, view);
  }
}

void read_values(const Tensor& t, void* values) { copy_to_host(values, t.raw(), t.nbytes()); }

}  // namespace mixpl::cuda
