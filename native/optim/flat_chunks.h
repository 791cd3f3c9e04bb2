// One parallel loop over the elements of many tensors, in pieces of a fixed size.
#pragma once

#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "core/tensor.h"

namespace mixpl {

/// Elements [begin, end) of tensor `tensor`; the `index`-th piece of all.
struct FlatChunk {
  size_t tensor;
  int64_t begin, end;
  size_t index;
};

/// 64 KiB of f32: small enough to share the work out, large enough not to notice.
constexpr int64_t kFlatChunk = 16384;

inline size_t chunk_count(const std::vector<Tensor>& tensors) {
  size_t count = 0;
  for (const Tensor& t : tensors) count += (t.numel() + kFlatChunk - 1) / kFlatChunk;
  return count;
}

/// f(chunk) over all elements of all tensors; the pieces do not depend on the number of threads.
template <typename F>
void for_each_chunk(const std::vector<Tensor>& tensors, F&& f) {
  std::vector<FlatChunk> chunks;
  chunks.reserve(chunk_count(tensors));
  for (size_t i = 0; i < tensors.size(); ++i)
    for (int64_t begin = 0; begin < tensors[i].numel(); begin += kFlatChunk)
      chunks.push_back({i, begin, std::min(tensors[i].numel(), begin + kFlatChunk), chunks.size()});
  parallel_for(static_cast<int64_t>(chunks.size()), int64_t{2}, [&](int64_t c) { f(chunks[c]); });
}

}  // namespace mixpl
