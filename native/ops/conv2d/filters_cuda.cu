#include "core/cuda/kernel.h"
#include "ops/conv2d/filter_place_cuda.h"
#include "ops/conv2d/filters_cuda.h"
#include "ops/conv2d/gemm_tile_cuda.h"

namespace mixpl::cuda {
namespace {

template <typename T>
struct RowCopy {
  const float* from;
  T* to;
  int64_t rows, length;  // of the source
  int64_t chunks;        // of a padded row

  MIXPL_DEVICE void operator()(int64_t i) const {
    const int64_t row = i / chunks, first = i % chunks * kChunk<T>;
    Vec<T, kChunk<T>> values;
#pragma unroll
    for (int e = 0; e < kChunk<T>; ++e) {
      const bool exists = row < rows && first + e < length;
      values[e] = T(exists ? load_read_only(from + row * length + first + e) : 0.0f);
    }
    store_vec(to + i * kChunk<T>, values);
  }
};

template <typename T>
struct PairCopy {
  const float* from;  // [K, height, width, channels]
  T* to;
  int height, width, channels, lead, pairs;
  int64_t chunks;  // of a padded row

  MIXPL_DEVICE float at(int64_t filter, int64_t element) const {
    const int64_t line = int64_t{2} * pairs * channels, down = element / line;
    const int64_t right = element % line / channels - lead;
    if (down >= height || right < 0 || right >= width) return 0;
    return load_read_only(from + ((filter * height + down) * width + right) * channels +
                          element % channels);
  }
  MIXPL_DEVICE void operator()(int64_t i) const {
    Vec<T, kChunk<T>> values;
#pragma unroll
    for (int e = 0; e < kChunk<T>; ++e) values[e] = T(at(i / chunks, i % chunks * kChunk<T> + e));
    store_vec(to + i * kChunk<T>, values);
  }
};

// Rows of whole chunks lie one after another: then their length does not matter.
std::string key_of_rows(DType type, int64_t length, int64_t zeros) {
  const int64_t chunk = kChunkBytes / size_of(type);
  return str("cuda ", type, " rows of ", length % chunk ? length : chunk, ", zeros ", zeros);
}

}  // namespace

const std::string& key_of_plain_rows() {
  static const std::string key = key_of_rows(DType::bf16, kChunk<bfloat16>, 0);
  return key;
}

Tensor place_for_filter_rows(const Tensor& weight, DType type, int64_t length) {
  if (length == 0 || length % (kChunkBytes / size_of(type))) return {};
  return weight.derived<Tensor>(key_of_rows(type, length, 0), [&] {
    return Tensor::empty({weight.numel() / length, length}, type, weight.device());
  });
}

Tensor filter_rows(const Tensor& weight, DType type, int64_t length, int64_t zero_rows) {
  const int64_t chunk = kChunkBytes / size_of(type), chunks = (length + chunk - 1) / chunk;
  if (type == DType::f32 && length == chunks * chunk && !zero_rows) return weight;
  return weight.derived<Tensor>(key_of_rows(type, length, zero_rows * chunks), [&] {
    const int64_t rows = length ? weight.numel() / length : 0, all = rows + zero_rows;
    Tensor out = Tensor::empty({all, chunks * chunk}, type, weight.device());
    dispatch_floating(type, [&](auto tag) {
      using T = decltype(tag);
      for_each(all * chunks, RowCopy<T>{weight.data<float>(), out.data<T>(), rows, length, chunks});
    });
    return out;
  });
}

Tensor paired_filter_rows(const Tensor& weight, DType type, int lead, int pairs) {
  return weight.derived<Tensor>(str("cuda ", type, " pairs ", lead, " ", pairs), [&] {
    const int64_t filters = weight.size(0), chunk = kChunkBytes / size_of(type);
    const int64_t chunks = (weight.size(1) * pairs * 2 * weight.size(3) + chunk - 1) / chunk;
    Tensor out = Tensor::empty({filters, chunks * chunk}, type, weight.device());
    dispatch_floating(type, [&](auto tag) {
      using T = decltype(tag);
      const auto size = [&](int axis) { return static_cast<int>(weight.size(axis)); };
      for_each(filters * chunks, PairCopy<T>{weight.data<float>(), out.data<T>(), size(1), size(2),
                                             size(3), lead, pairs, chunks});
    });
    return out;
  });
}

}  // namespace mixpl::cuda
