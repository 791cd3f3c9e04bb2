#include "core/cuda/packs.h"
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

// Of the narrower type of two; the wider one takes two accesses.
template <typename From, typename To>
constexpr int kPackOfBoth = std::max(kVecWidth<From>, kVecWidth<To>);

template <int N, typename T>
MIXPL_DEVICE void load_values(const T* p, float (&values)[N]) {
  constexpr int kWidth = std::min(N, kVecWidth<T>);
  for (int at = 0; at < N; at += kWidth) {
    const Vec<T, kWidth> v = load_vec<T, kWidth>(p + at);
    for (int n = 0; n < kWidth; ++n) values[at + n] = float(v[n]);
  }
}
template <int N, typename T>
MIXPL_DEVICE void store_values(T* p, const float (&values)[N]) {
  constexpr int kWidth = std::min(N, kVecWidth<T>);
  for (int at = 0; at < N; at += kWidth) {
    Vec<T, kWidth> v;
    for (int n = 0; n < kWidth; ++n) v[n] = T(values[at + n]);
    store_vec(p + at, v);
  }
}

template <typename From, typename To>
struct Cast {
  const From* in;
  To* out;
  template <int N>
  MIXPL_DEVICE void values(int64_t i) const {
    float v[N];
    load_values<N>(in + i, v);
    store_values<N>(out + i, v);
  }
};

template <typename From, typename To>
struct AddTo {
  const From* in;
  To* out;
  template <int N>
  MIXPL_DEVICE void values(int64_t i) const {
    float v[N], sum[N];
    load_values<N>(in + i, v);
    load_values<N>(out + i, sum);
    for (int n = 0; n < N; ++n) sum[n] += v[n];
    store_values<N>(out + i, sum);
  }
};

/// F<From, To> for all values of both, whose types are floating.
template <template <typename, typename> class F>
void for_values_of(const Tensor& from, const Tensor& to,
                   std::source_location where = std::source_location::current()) {
  dispatch_floating(from.dtype(), [&](auto source) {
    dispatch_floating(to.dtype(), [&](auto target) {
      using From = decltype(source);
      using To = decltype(target);
      for_all_values<kPackOfBoth<From, To>>(from.numel(),
                                            F<From, To>{from.data<From>(), to.data<To>()}, where);
    });
  });
}

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

void cast_values(const Tensor& from, const Tensor& to) { for_values_of<Cast>(from, to); }

void add_values(const Tensor& from, const Tensor& to) { for_values_of<AddTo>(from, to); }

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
