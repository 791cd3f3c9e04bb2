// What one pass over the elements of many tensors needs to know of them, in pieces of a fixed size:
// a parallel loop (flat_table_cpu.h), or one launch on a GPU (flat_table_cuda.h).
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/tensor.h"

namespace mixpl {

/// 64 KiB of f32: small enough to share the work out, large enough not to notice.
constexpr int64_t kFlatChunk = 16384;

/// Plain host values with their copy on a GPU, which is made again only when they changed.
template <typename T>
class Mirrored {
 public:
  std::vector<T> values;

  const T* on(Device device) {
    const size_t bytes = values.size() * sizeof(T);
    const bool same = copy_.defined() && copy_.device() == device && sent_.size() == bytes &&
                      (bytes == 0 || std::memcmp(sent_.data(), values.data(), bytes) == 0);
    if (!same) {
      sent_.resize(bytes);
      if (bytes) std::memcpy(sent_.data(), values.data(), bytes);
      copy_ = Tensor::from(sent_, {static_cast<int64_t>(bytes)}, device);
    }
    return static_cast<const T*>(copy_.raw());
  }

 private:
  std::vector<uint8_t> sent_;
  Tensor copy_;
};

/// Elements from index * kFlatChunk of row `row`: the part of one thread, or of one block.
struct FlatPiece {
  int32_t row, index;
};

/// Plain rows, one a tensor, each with its `int64_t numel`, and how their elements are shared out.
template <typename Row>
class FlatTable {
 public:
  void assign(std::vector<Row> rows) {
    const bool same = std::equal(rows.begin(), rows.end(), rows_.values.begin(), rows_.values.end(),
                                 [](const Row& a, const Row& b) { return a.numel == b.numel; });
    rows_.values = std::move(rows);
    if (same) return;
    pieces_.values.clear();
    for (size_t i = 0; i < rows_.values.size(); ++i)
      for (int64_t k = 0; k * kFlatChunk < rows_.values[i].numel; ++k)
        pieces_.values.push_back({static_cast<int32_t>(i), static_cast<int32_t>(k)});
  }

  const std::vector<Row>& rows() const { return rows_.values; }
  const std::vector<FlatPiece>& pieces() const { return pieces_.values; }
  const Row* rows_on(Device device) { return rows_.on(device); }
  const FlatPiece* pieces_on(Device device) { return pieces_.on(device); }

 private:
  Mirrored<Row> rows_;
  Mirrored<FlatPiece> pieces_;
};

}  // namespace mixpl
