// Which stretches of memory are free, for core/allocator.cpp. Under its lock.
#pragma once

#include <algorithm>
#include <cstdint>
#include <set>

namespace mixpl {

/// A stretch of a segment, which is what was got from the system at once.
struct Block {
  char* at;
  int64_t size;
  bool small;               // in a segment of small ones
  Block* before = nullptr;  // neighbours in the segment
  Block* after = nullptr;
  bool free = false;

  bool is_segment() const { return !before && !after; }
};

/// Blocks are cut out of segments and joined again when they are free, where that is allowed:
/// shapes that vary share the same memory. Elsewhere a segment is a block.
class FreeBlocks {
 public:
  /// @param cuts whether segments are cut
  explicit FreeBlocks(bool cuts) : cuts_(cuts) {}

  /// What a request for so many bytes takes.
  int64_t block_size(int64_t bytes) const {
    if (cuts_) return rounded(bytes, is_small(bytes) ? kAlignment : kPage);
    // Eight steps per power of two: similar shapes share blocks, at most an eighth is wasted.
    int64_t step = kAlignment;
    while (bytes > 1024 && step * 16 < bytes) step *= 2;
    return rounded(bytes, step);
  }
  /// How much to get from the system for a block.
  int64_t segment_size(int64_t size) const {
    if (!cuts_) return size;
    return is_small(size) ? kSmallSegment : std::max(rounded(size, kHugePage), kSegment);
  }

  /// The free block that fits best, or null.
  Block* take(int64_t size) {
    Set& free = free_[cuts_ && is_small(size)];
    Block wanted{nullptr, size, false};
    const auto found = free.lower_bound(&wanted);
    // A block that is not cut may serve a request down to two thirds of its size.
    if (found == free.end() || (!cuts_ && (*found)->size > size + size / 2)) return nullptr;
    Block* block = *found;
    free.erase(found);
    return cut(block, size);
  }
  /// The beginning of a new segment.
  Block* take_of(void* segment, int64_t bytes, int64_t size) {
    return cut(new Block{static_cast<char*>(segment), bytes, cuts_ && is_small(size)}, size);
  }

  void give_back(Block* block) {
    if (Block* next = block->after; next && next->free) {
      set_of(next).erase(next);
      absorb(block, next);
    }
    if (Block* last = block->before; last && last->free) {
      set_of(last).erase(last);
      absorb(last, block);
      block = last;
    }
    insert(block);
  }

  /// f(segment, bytes) for all segments of which nothing is in use; they are forgotten.
  template <typename F>
  void release(F&& f) {
    for (Set& free : free_)
      std::erase_if(free, [&](Block* block) {
        if (!block->is_segment()) return false;
        f(block->at, block->size);
        delete block;
        return true;
      });
  }

 private:
  struct BySize {
    bool operator()(const Block* a, const Block* b) const {
      return a->size != b->size ? a->size < b->size : a->at < b->at;
    }
  };
  using Set = std::set<Block*, BySize>;

  static constexpr int64_t kAlignment = 64, kPage = 4096, kHugePage = 2 << 20;
  static constexpr int64_t kSmallest = 1 << 20;  // of those that are not small
  static constexpr int64_t kSmallSegment = 2 * kHugePage, kSegment = 16 * kHugePage;

  static bool is_small(int64_t bytes) { return bytes < kSmallest; }
  static int64_t rounded(int64_t bytes, int64_t step) { return (bytes + step - 1) / step * step; }

  Set& set_of(const Block* block) { return free_[block->small]; }
  void insert(Block* block) {
    block->free = true;
    set_of(block).insert(block);
  }
  // `after` becomes the end of `block`.
  static void absorb(Block* block, Block* after) {
    block->size += after->size;
    block->after = after->after;
    if (block->after) block->after->before = block;
    delete after;
  }
  // Makes it no longer than `size`, if what remains is of use.
  Block* cut(Block* block, int64_t size) {
    block->free = false;
    const int64_t rest = block->size - size, least = block->small ? kAlignment : kSmallest / 4;
    if (!cuts_ || rest < least) return block;
    auto* end = new Block{block->at + size, rest, block->small, block, block->after};
    if (end->after) end->after->before = end;
    block->after = end;
    block->size = size;
    insert(end);
    return block;
  }

  const bool cuts_;
  Set free_[2];  // [1]: small ones
};

}  // namespace mixpl
