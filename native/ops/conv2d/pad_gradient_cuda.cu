#include "core/cuda/packs.h"
#include "ops/conv2d/conv2d.h"
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

}  // namespace

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
  std::vector<Tensor> padded;
  int64_t packs = 0;
  dispatch_floating(type, [&](auto tag) {
    using T = decltype(tag);
    PaddedCopy<T> copy{{}, {}, Divider(chunks), static_cast<int>(filters[0])};
    for (size_t l = 0; l < dys.size(); ++l) {
      const Shape& s = dys[l].shape();
      const Tensor& to = padded.emplace_back(
          Tensor::empty({s[0], s[1], s[2], chunks * chunk}, type, dys[l].device()));
      copy.levels[l] = {dys[l].data<T>(), to.data<T>()};
      copy.starts.add(to.numel() / chunk);
      packs += to.numel() / chunk;
    }
    for_each_pack<kChunk<T>>(packs, copy);
  });
  return padded;
}

}  // namespace mixpl::cuda
