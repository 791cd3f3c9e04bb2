// Maps whose pixels are padded to whole chunks of 16 bytes, so that products read and write them
// so.
#include "core/cuda/packs.h"
#include "ops/conv2d/conv2d.h"
#include "ops/conv2d/filters_cuda.h"
#include "ops/conv2d/gemm_tile_cuda.h"
#include "ops/conv2d/level_starts_cuda.h"

namespace mixpl::cuda {
namespace {

template <typename T>
struct PaddedCopy {
  struct Level {
    const T* from;
    T* to;
  };
  Level levels[kMostConvLevels];
  LevelStarts starts;  // in chunks
  Divider chunks;      // of a padded pixel
  int channels;        // of the source

  template <int N>
  MIXPL_DEVICE void pack(uint32_t i) const {
    const int number = starts.find(static_cast<int>(i));
    const Level level = levels[number];
    const uint32_t place = i - starts.first[number];
    uint32_t chunk = place;
    const int64_t pixel = chunks.split(chunk);
    const int first = static_cast<int>(chunk) * N;
    const T* from = level.from + pixel * channels + first;
    Vec<T, N> values;
#pragma unroll
    for (int e = 0; e < N; ++e)
      values[e] = first + e < channels ? load_read_only(from + e) : T(0.0f);
    store_vec(level.to + int64_t{place} * N, values);
  }
};

// The other way: N elements of a map, which may end one pixel and begin the next.
template <typename T>
struct UnpaddedCopy {
  struct Level {
    const T* from;
    T* to;
    int64_t count;
  };
  Level levels[kMostConvLevels];
  LevelStarts starts;  // in chunks
  Divider channels;
  int pitch;  // of the source

  template <int N>
  MIXPL_DEVICE void pack(uint32_t i) const {
    const int number = starts.find(static_cast<int>(i));
    const Level level = levels[number];
    const int64_t first = int64_t{i - starts.first[number]} * N;
    uint32_t channel = static_cast<uint32_t>(first);
    const T* from = level.from + int64_t{channels.split(channel)} * pitch;
    Vec<T, N> values;
#pragma unroll
    for (int e = 0; e < N; ++e) {
      values[e] = first + e < level.count ? load_read_only(from + channel) : T(0.0f);
      if (++channel == channels.divisor()) {
        channel = 0;
        from += pitch;
      }
    }
    if (first + N <= level.count) return store_vec(level.to + first, values);
    for (int e = 0; e < N; ++e)
      if (first + e < level.count) level.to[first + e] = values[e];
  }
};

std::vector<Tensor> padded_like(const std::vector<Tensor>& maps) {
  std::vector<Tensor> padded;
  for (const Tensor& map : maps) {
    const Shape& s = map.shape();
    const int64_t chunk = kChunkBytes / size_of(map.dtype());
    padded.push_back(Tensor::empty({s[0], s[1], s[2], (s[3] + chunk - 1) / chunk * chunk},
                                   map.dtype(), map.device()));
  }
  return padded;
}

}  // namespace

PaddedOutputs::PaddedOutputs(const std::vector<Tensor>& ys) : ys_(ys), padded_(padded_like(ys)) {}

void PaddedOutputs::unpad() const {
  int64_t packs = 0;
  dispatch_floating(ys_[0].dtype(), [&](auto tag) {
    using T = decltype(tag);
    UnpaddedCopy<T> copy{{}, {}, Divider(ys_[0].size(3)), static_cast<int>(padded_[0].size(3))};
    for (size_t l = 0; l < ys_.size(); ++l) {
      const int64_t chunks = (ys_[l].numel() + kChunk<T> - 1) / kChunk<T>;
      copy.levels[l] = {padded_[l].data<T>(), ys_[l].data<T>(), ys_[l].numel()};
      copy.starts.add(chunks);
      packs += chunks;
    }
    for_each_pack<kChunk<T>>(packs, copy);
  });
}

Tensor pad_gradient(const Tensor& dy, const Shape& filters, const Conv2dOptions& o) {
  return pad_gradient(std::vector{dy}, filters, o).front();
}

std::vector<Tensor> pad_gradient(const std::vector<Tensor>& dys, const Shape& filters,
                                 const Conv2dOptions& o) {
  if (dys.empty() || dys[0].size(3) != filters[0] || o.groups > 1) return dys;
  const DType type = dys[0].dtype();
  const int64_t chunk = kChunkBytes / size_of(type), chunks = (filters[0] + chunk - 1) / chunk;
  // Without whole chunks in x the weight gradient would copy elements all the same.
  if (filters[0] == chunks * chunk || filters[3] % chunk) return dys;
  const std::vector<Tensor> padded = padded_like(dys);
  int64_t packs = 0;
  dispatch_floating(type, [&](auto tag) {
    using T = decltype(tag);
    PaddedCopy<T> copy{{}, {}, Divider(chunks), static_cast<int>(filters[0])};
    for (size_t l = 0; l < dys.size(); ++l) {
      copy.levels[l] = {dys[l].data<T>(), padded[l].data<T>()};
      copy.starts.add(padded[l].numel() / chunk);
      packs += padded[l].numel() / chunk;
    }
    for_each_pack<kChunk<T>>(packs, copy);
  });
  return padded;
}

}  // namespace mixpl::cuda
