// One parallel loop over the elements of all tensors of a FlatTable.
#pragma once

#include "core/parallel.h"
#include "optim/flat_table.h"

namespace mixpl::cpu {

/// f(p, piece, begin, end) for the p-th piece: elements [begin, end) of row piece.row. The pieces
/// do not depend on the number of threads.
template <typename Row, typename F>
void for_each_piece(const FlatTable<Row>& table, F&& f) {
  parallel_for(static_cast<int64_t>(table.pieces().size()), int64_t{2}, [&](int64_t p) {
    const FlatPiece piece = table.pieces()[p];
    const int64_t begin = piece.index * kFlatChunk;
    f(p, piece, begin, std::min(table.rows()[piece.row].numel, begin + kFlatChunk));
  });
}

}  // namespace mixpl::cpu
