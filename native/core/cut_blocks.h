// Blocks of the host's memory that are cut out of one range of addresses and joined again when they
// come back, so that shapes that vary share the same memory.
#pragma once

#include <vector>

#include "core/blocks.h"

namespace mixpl {

class CutBlocks final : public Blocks {
 public:
  CutBlocks();
  ~CutBlocks() override;
  CutBlocks(const CutBlocks&) = delete;
  CutBlocks& operator=(const CutBlocks&) = delete;

  Block* take(int64_t bytes) override;
  Block* get(int64_t bytes) override;
  void give_back(Block* block) override;
  void release() override;

 private:
  struct Piece : Block {
    bool small;               // in a range of small ones
    int64_t resident;         // bytes for which the system gave memory, as far as it is known
    Piece* before = nullptr;  // neighbours in the range; behind the last one lies its end
    Piece* after = nullptr;
    bool free = false;
  };
  // Addresses that are reserved. Memory is asked for from their beginning on, up to `end`.
  struct Range {
    char* begin;
    int64_t bytes;
    Piece* end;  // of no size, in use for ever
  };

  int64_t size_for(int64_t bytes) const;
  bool reserve(bool small, int64_t bytes);
  Piece* grow(Range& range, int64_t bytes);
  Piece* cut(Piece* piece, int64_t size);
  void keep(Piece* piece);
  void forget(Piece* piece);
  static void unmap(std::vector<Range>& ranges, std::vector<Range>::iterator range);

  const int64_t reservation_;
  // [1]: of small ones. The last range is the one that grows.
  std::vector<Range> ranges_[2];
  BlocksBySize<Piece> free_[2];
};

}  // namespace mixpl
