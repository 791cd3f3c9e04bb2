#include "core/cut_blocks.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

namespace mixpl {
namespace {

constexpr int64_t kAlignment = 64, kPage = 4096, kHugePage = 2 << 20;
constexpr int64_t kSmallest = 256 << 10;  // of those that are not small
// A range that cannot grow should serve more than one request.
constexpr int64_t kLeastRange = 16 * kHugePage, kLeastSmallRange = 2 * kHugePage;
constexpr int64_t kLeastReleased = 64 << 10;  // worth a call

bool is_small(int64_t bytes) { return bytes < kSmallest; }

// How many addresses a range takes: as many as the machine has memory, which costs nothing. Where a
// process may have few (ulimit -v), no more than it needs.
int64_t reservation() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur != RLIM_INFINITY) return 0;
  return int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
}

}  // namespace

CutBlocks::CutBlocks() : reservation_(reservation()) {}

CutBlocks::~CutBlocks() { release(); }

int64_t CutBlocks::size_for(int64_t bytes) const {
  return rounded_up(bytes, is_small(bytes) ? kAlignment : kPage);
}

Block* CutBlocks::take(int64_t bytes) {
  const int64_t size = size_for(bytes);
  auto& free = free_[is_small(bytes)];
  Piece wanted{{nullptr, size}, false, 0};
  const auto found = free.lower_bound(&wanted);
  return found == free.end() ? nullptr : cut(*found, size);
}

Block* CutBlocks::get(int64_t bytes) {
  const bool small = is_small(bytes);
  const int64_t size = size_for(bytes);
  auto& ranges = ranges_[small];
  Piece* piece = ranges.empty() ? nullptr : grow(ranges.back(), size);
  if (!piece && reserve(small, size)) {
    piece = grow(ranges.back(), size);
    if (!piece) unmap(ranges, ranges.end() - 1);
  }
  if (!piece) return nullptr;
  ++system_allocations_;
  return cut(piece, size);
}

// A range without memory yet.
bool CutBlocks::reserve(bool small, int64_t size) {
  if (size > INT64_MAX / 2) return false;
  const int64_t least =
      std::max(rounded_up(size, kHugePage), small ? kLeastSmallRange : kLeastRange);
  for (const int64_t bytes : {std::max(rounded_up(reservation_, kHugePage), least), least}) {
    void* memory = mmap(nullptr, bytes + kHugePage, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) continue;
    const auto start = reinterpret_cast<uintptr_t>(memory);
    const uintptr_t aligned = (start + kHugePage - 1) / kHugePage * kHugePage;
    if (aligned > start) munmap(memory, aligned - start);
    if (start + kHugePage > aligned)
      munmap(reinterpret_cast<void*>(aligned + bytes), start + kHugePage - aligned);
    auto* begin = reinterpret_cast<char*>(aligned);
    madvise(begin, bytes, MADV_HUGEPAGE);
    ranges_[small].push_back({begin, bytes, new Piece{{begin, 0}, small, 0}});
    return true;
  }
  return false;
}

// A free piece of at least so many bytes at the range's end, or null.
CutBlocks::Piece* CutBlocks::grow(Range& range, int64_t bytes) {
  Piece *end = range.end, *last = end->before;
  if (last && !last->free) last = nullptr;
  const int64_t more =
      rounded_up(bytes - (last ? last->size : 0), end->small ? kLeastSmallRange : kHugePage);
  if (more > range.begin + range.bytes - end->at) return nullptr;
  if (mprotect(end->at, more, PROT_READ | PROT_WRITE) != 0) return nullptr;
  if (last) {
    forget(last);
  } else {
    last = new Piece{{end->at, 0}, end->small, 0, end->before, end};
    if (last->before) last->before->after = last;
    end->before = last;
  }
  last->size += more;
  last->resident += more;
  end->at += more;
  keep(last);
  return last;
}

void CutBlocks::keep(Piece* piece) {
  piece->free = true;
  cached_bytes_ += piece->resident;
  free_[piece->small].insert(piece);
}
void CutBlocks::forget(Piece* piece) {
  piece->free = false;
  cached_bytes_ -= piece->resident;
  free_[piece->small].erase(piece);
}

// Takes a free piece, no more than `size` of it if what remains is of use.
CutBlocks::Piece* CutBlocks::cut(Piece* piece, int64_t size) {
  forget(piece);
  const int64_t rest = piece->size - size, least = piece->small ? kAlignment : kSmallest / 4;
  if (rest >= least) {
    auto* end = new Piece{{piece->at + size, rest},
                          piece->small,
                          std::max<int64_t>(0, piece->resident - size),
                          piece,
                          piece->after};
    end->after->before = end;
    piece->after = end;
    piece->size = size;
    keep(end);
  }
  if (piece->resident < piece->size) ++system_allocations_;  // as it is written to
  return piece;
}

void CutBlocks::give_back(Block* block) {
  auto* piece = static_cast<Piece*>(block);
  piece->resident = piece->size;
  const auto absorb = [](Piece* front, Piece* back) {
    front->size += back->size;
    front->resident += back->resident;
    front->after = back->after;
    front->after->before = front;
    delete back;
  };
  if (Piece* next = piece->after; next->free) {
    forget(next);
    absorb(piece, next);
  }
  if (Piece* last = piece->before; last && last->free) {
    forget(last);
    absorb(last, piece);
    piece = last;
  }
  keep(piece);
}

// The range that a piece fills goes as a whole; of others the pages do.
void CutBlocks::release() {
  for (const bool small : {false, true}) {
    const std::vector<Piece*> pieces(free_[small].begin(), free_[small].end());
    for (Piece* piece : pieces) {
      if (!piece->before && piece->after->size == 0) {
        auto& ranges = ranges_[small];
        unmap(ranges, std::find_if(ranges.begin(), ranges.end(),
                                   [&](const Range& r) { return r.end == piece->after; }));
        forget(piece);
        delete piece;
        continue;
      }
      const auto start = reinterpret_cast<uintptr_t>(piece->at);
      const uintptr_t from = (start + kPage - 1) / kPage * kPage;
      const uintptr_t to = (start + piece->size) / kPage * kPage;
      if (piece->resident == 0 || to < from + kLeastReleased) continue;
      madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
      cached_bytes_ -= piece->resident;
      piece->resident = 0;
    }
  }
}

void CutBlocks::unmap(std::vector<Range>& ranges, std::vector<Range>::iterator range) {
  munmap(range->begin, range->bytes);
  delete range->end;
  ranges.erase(range);
}

}  // namespace mixpl
