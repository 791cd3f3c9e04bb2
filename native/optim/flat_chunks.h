// One parallel loop over the elements of many tensors, in pieces of a fixed size.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "core/parallel.h"
#include "core/tensor.h"

namespace mixpl {

constexpr int64_t kFlatChunk = 16384;

inline std::vector<Tensor> values(const std::vector<Tensor>& tensors) { return tensors; }
template <typename Target>
std::vector<Tensor> values(const std::vector<Target>& targets) {
  std::vector<Tensor> out;
  for (const Target& t : targets) out.push_back(t.value);
  return out;
}

inline size_t chunk_count(const std::vector<Tensor>& tensors) {
  size_t count = 0;
  for (const Tensor& t : tensors) count += (t.numel() + kFlatChunk - 1) / kFlatChunk;
  return count;
}

/// f(tensor index, begin, end[, chunk index]) over all elements; chunks do not depend on the number
/// of threads.
template <typename F>
void for_each_chunk(const std::vector<Tensor>& tensors, F&& f) {
  struct Piece {
    size_t tensor;
    int64_t begin, end;
  };
  std::vector<Piece> pieces;
  pieces.reserve(chunk_count(tensors));
  for (size_t i = 0; i < tensors.size(); ++i)
    for (int64_t begin = 0; begin < tensors[i].numel(); begin += kFlatChunk)
      pieces.push_back({i, begin, std::min(tensors[i].numel(), begin + kFlatChunk)});
  parallel_for(static_cast<int64_t>(pieces.size()), int64_t{2}, [&](int64_t p) {
    const Piece& piece = pieces[p];
    if constexpr (std::is_invocable_v<F, size_t, int64_t, int64_t, size_t>)
      f(piece.tensor, piece.begin, piece.end, static_cast<size_t>(p));
    else
      f(piece.tensor, piece.begin, piece.end);
  });
}

}  // namespace mixpl
