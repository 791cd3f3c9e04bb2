// One launch over the elements of all tensors of a FlatTable: a block a piece.
#pragma once

#include "core/cuda/kernel.h"
#include "optim/flat_table.h"

namespace mixpl::cuda {

constexpr int kFlatThreads = 256;

/// Four neighbouring elements. Tensors and pieces begin at 64 bytes, so only the last ones of a
/// tensor may be fewer.
using Four = Vec<float, 4>;

MIXPL_DEVICE Four load_four(const float* p, int64_t count) {
  if (count >= 4) return load_vec<float, 4>(p);
  Four v{};
  for (int k = 0; k < 3; ++k)
    if (k < count) v[k] = p[k];
  return v;
}
MIXPL_DEVICE void store_four(float* p, const Four& v, int64_t count) {
  if (count >= 4) {
    store_vec(p, v);
    return;
  }
  for (int k = 0; k < 3; ++k)
    if (k < count) p[k] = v[k];
}

/// f(offset, count) for all fours of the block's piece: elements [offset, offset + min(count, 4)).
template <typename F>
MIXPL_DEVICE void for_each_four(FlatPiece piece, int64_t numel, F&& f) {
  const int64_t begin = piece.index * kFlatChunk;
  const int64_t end = begin + kFlatChunk < numel ? begin + kFlatChunk : numel;
  for (int64_t k = begin + 4 * threadIdx.x; k < end; k += 4 * kFlatThreads) f(k, end - k);
}

template <typename Row, typename Body>
MIXPL_KERNEL flat_kernel(const Row* __restrict__ rows, const FlatPiece* __restrict__ pieces,
                         Body body) {
  const FlatPiece piece = pieces[blockIdx.x];
  body(piece, rows[piece.row]);
}

/// body(piece, row) by all threads of a block, for every piece.
template <typename Row, typename Body>
void for_each_piece(FlatTable<Row>& table, Device device, const Body& body,
                    std::source_location where = std::source_location::current()) {
  launch(flat_kernel<Row, Body>, Grid(table.pieces().size(), where), dim3(kFlatThreads), 0,
         table.rows_on(device), table.pieces_on(device), body);
}

}  // namespace mixpl::cuda
