// Blocks that a memory source gave as they are: for GPUs, and for tests that watch where a block
// ends.
#pragma once

#include "core/allocator.h"
#include "core/blocks.h"

namespace mixpl {

class WholeBlocks final : public Blocks {
 public:
  explicit WholeBlocks(MemorySource& source) : source_(source) {}
  ~WholeBlocks() override { release(); }

  Block* take(int64_t bytes) override {
    const int64_t size = size_for(bytes);
    Block wanted{nullptr, size};
    const auto found = free_.lower_bound(&wanted);
    // One may serve a request down to two thirds of its size.
    if (found == free_.end() || (*found)->size > size + size / 2) return nullptr;
    Block* block = *found;
    free_.erase(found);
    cached_bytes_ -= block->size;
    return block;
  }

  Block* get(int64_t bytes) override {
    const int64_t size = size_for(bytes);
    void* memory = source_.allocate(size);
    if (!memory) return nullptr;
    ++system_allocations_;
    return new Block{static_cast<char*>(memory), size};
  }

  void give_back(Block* block) override {
    cached_bytes_ += block->size;
    free_.insert(block);
  }

  void release() override {
    for (Block* block : free_) {
      source_.free(block->at, block->size);
      delete block;
    }
    free_.clear();
    cached_bytes_ = 0;
  }

 private:
  // Eight steps per power of two: similar shapes share blocks, at most an eighth is wasted.
  static int64_t size_for(int64_t bytes) {
    int64_t step = 64;
    while (bytes > 1024 && step * 16 < bytes) step *= 2;
    return rounded_up(bytes, step);
  }

  MemorySource& source_;
  BlocksBySize<Block> free_;
};

}  // namespace mixpl
