// Sums over pixels, one per image and channel, of tensors [images, pixels, channels]: f32 within a
// block's chunk of pixels, f64 over the chunks, in an order that follows from the shape alone.
#pragma once

#include <algorithm>

#include "core/cuda/packs.h"

namespace mixpl::cuda {

constexpr int kChannelThreads = 256;
// Pixels in flight per thread: enough loads to hide the memory's latency.
constexpr int kPixelsAtOnce = 4;

/// How blocks share the values. A block has `lanes` packs of channels side by side and `rows`
/// pixels at once, and walks over one chunk of an image's pixels; grid.x counts images and chunks,
/// grid.y parts of the channels.
struct ChannelBlocks {
  int64_t pixels, channels, chunk;  // chunk: pixels of a block
  uint32_t lanes, rows, chunks;     // chunks: of an image
  int64_t images;
  unsigned parts;

  ChannelBlocks(int64_t images, int64_t pixels, int64_t channels, int pack)
      : pixels(pixels), channels(channels), images(images) {
    constexpr int64_t kSteps = 16;        // of a thread at least, or its own sums cost too much
    constexpr int64_t kMostChunks = 512;  // four blocks on each of an H100's 132 multiprocessors
    const int64_t packs = channels / pack;
    lanes = static_cast<uint32_t>(std::clamp<int64_t>(packs, 1, kChannelThreads));
    rows = kChannelThreads / lanes;
    const int64_t wanted = std::min(kMostChunks, (pixels + kSteps * rows - 1) / (kSteps * rows));
    chunk = wanted > 0 ? (pixels + wanted - 1) / wanted : 0;
    chunks = static_cast<uint32_t>(chunk > 0 ? (pixels + chunk - 1) / chunk : 0);
    parts = static_cast<unsigned>((packs + lanes - 1) / lanes);
  }
  dim3 grid() const { return dim3(index_of(images * chunks), parts); }
};

/// The share of one thread: pixels begin, begin + rows, ... below end, `channel` and its neighbours
/// in the pack. Nothing (begin = end) for threads that are left over.
struct ChannelShare {
  int64_t image, begin, end;
  int64_t channel;
  uint32_t chunk, lane;

  template <int N>
  static MIXPL_DEVICE ChannelShare of(const ChannelBlocks& b, PackOf<N>) {
    ChannelShare s;
    const uint32_t row = threadIdx.x / b.lanes;
    s.lane = threadIdx.x % b.lanes;
    s.image = blockIdx.x / b.chunks;
    s.chunk = blockIdx.x % b.chunks;
    s.channel = (int64_t{blockIdx.y} * b.lanes + s.lane) * N;
    s.begin = s.chunk * b.chunk;
    s.end = s.begin + b.chunk < b.pixels ? s.begin + b.chunk : b.pixels;
    s.begin = row < b.rows && s.channel < b.channels ? s.begin + row : s.end;
    return s;
  }
};

/// Adds what the rows of the block have summed, in order: out[k * channels + c] for K sums a
/// channel. All threads of the block must call.
template <int K, int N>
MIXPL_DEVICE void add_rows(const ChannelBlocks& b, const ChannelShare& s, const float (&sum)[K][N],
                           float* out) {
  constexpr int kSums = K * N * kChannelThreads;
  MIXPL_SHARED(float, of_threads, kSums);
  for (int k = 0; k < K; ++k)
    for (int n = 0; n < N; ++n) of_threads[(k * N + n) * kChannelThreads + threadIdx.x] = sum[k][n];
  sync_block();
  for (uint32_t i = threadIdx.x; i < K * N * b.lanes; i += kChannelThreads) {
    const uint32_t which = i / b.lanes, lane = i % b.lanes;
    const int64_t channel = (int64_t{blockIdx.y} * b.lanes + lane) * N + which % N;
    if (channel >= b.channels) continue;
    float total = 0;
    for (uint32_t r = 0; r < b.rows; ++r)
      total += of_threads[which * kChannelThreads + r * b.lanes + lane];
    out[which / N * b.channels + channel] = total;
  }
}

constexpr int kMergeWarps = 16;

template <typename Put>
MIXPL_KERNEL __launch_bounds__(kMergeWarps * 32)
    merge_chunks_kernel(const float* partial, uint32_t chunks, int64_t sums, Put put) {
  MIXPL_SHARED(double, of_warps, kMergeWarps * 32);
  const int64_t image = blockIdx.x, i = int64_t{blockIdx.y} * 32 + lane();
  double sum = 0;
  if (i < sums)
    for (uint32_t k = warp(); k < chunks; k += kMergeWarps)
      sum += partial[(image * chunks + k) * sums + i];
  of_warps[threadIdx.x] = sum;
  sync_block();
  if (warp() > 0 || i >= sums) return;
  for (int w = 1; w < kMergeWarps; ++w) sum += of_warps[w * 32 + lane()];
  put(image, i, sum);
}

/// put(image, i, sum over chunks of partial[image][chunk][i]) for i in [0, sums). Put is plain data
/// with `MIXPL_DEVICE void operator()(int64_t image, int64_t i, double sum) const`.
template <typename Put>
void merge_chunks(int64_t images, uint32_t chunks, const float* partial, int64_t sums, Put put) {
  launch(merge_chunks_kernel<Put>, dim3(index_of(images), static_cast<unsigned>((sums + 31) / 32)),
         kMergeWarps * 32, 0, partial, chunks, sums, put);
}
template <typename Put>
void merge_chunks(const ChannelBlocks& b, const float* partial, int64_t sums, Put put) {
  merge_chunks(b.images, b.chunks, partial, sums, put);
}

struct KeepSum {
  double* out;
  int64_t sums;
  MIXPL_DEVICE void operator()(int64_t image, int64_t i, double sum) const {
    out[image * sums + i] = sum;
  }
};

/// out[image][i] = sum over chunks of partial[image][chunk][i], i in [0, sums).
inline void merge_chunks(const ChannelBlocks& b, const float* partial, int64_t sums, double* out) {
  merge_chunks(b, partial, sums, KeepSum{out, sums});
}

}  // namespace mixpl::cuda
