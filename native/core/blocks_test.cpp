#include <gtest/gtest.h>

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "core/cut_blocks.h"
#include "core/philox.h"
#include "core/whole_blocks.h"

namespace mixpl {
namespace {

/// Gives addresses that nobody reads or writes.
class NoMemory final : public MemorySource {
 public:
  void* allocate(int64_t bytes) override {
    char* block = next_;
    next_ += bytes + 4096;
    sizes[block] = bytes;
    return block;
  }
  void free(void* block, int64_t bytes) override {
    EXPECT_EQ(sizes.at(static_cast<char*>(block)), bytes);
    sizes.erase(static_cast<char*>(block));
  }
  std::string describe() const override { return "none"; }

  std::map<char*, int64_t> sizes;

 private:
  char* next_ = reinterpret_cast<char*>(int64_t{1} << 40);
};

Block* any(Blocks& blocks, int64_t bytes) {
  Block* block = blocks.take(bytes);
  return block ? block : blocks.get(bytes);
}

/// Takes and gives back at random: those in use do not overlap, and keep what was written to them.
void use(Blocks& blocks, bool write, int64_t most_waste, uint64_t seed) {
  const Philox random{seed, 0};
  struct Taken {
    Block* block;
    char mark;
  };
  std::vector<Taken> taken;
  const auto marks = [](const Taken& t) {
    return std::pair<char&, char&>(t.block->at[0], t.block->at[t.block->size - 1]);
  };
  const auto give_back = [&](const Taken& t) {
    if (write) {
      EXPECT_EQ(marks(t).first, t.mark);
      EXPECT_EQ(marks(t).second, t.mark);
    }
    blocks.give_back(t.block);
  };
  for (uint64_t i = 0; i < 3000; ++i) {
    if (random.uniform(3 * i) < (i < 2000 ? 0.6 : 0.3) || taken.empty()) {
      const auto bytes = static_cast<int64_t>(std::exp(18 * random.uniform(3 * i + 1)));
      Block* block = any(blocks, bytes);
      ASSERT_NE(block, nullptr);
      ASSERT_GE(block->size, bytes);
      EXPECT_LE(block->size, std::max(2 * bytes, bytes + most_waste));
      EXPECT_EQ(reinterpret_cast<uintptr_t>(block->at) % 64, 0u);
      for (const auto& [other, mark] : taken)
        EXPECT_TRUE(block->at + block->size <= other->at || other->at + other->size <= block->at);
      taken.push_back({block, static_cast<char>(i)});
      if (write) marks(taken.back()).first = marks(taken.back()).second = taken.back().mark;
    } else {
      const auto which = static_cast<size_t>(random.uniform(3 * i + 2) * taken.size());
      give_back(taken[which]);
      taken.erase(taken.begin() + static_cast<std::ptrdiff_t>(which));
    }
    if (i % 500 == 499) blocks.release();
  }
  for (const Taken& t : taken) give_back(t);
}

// Bytes of the process for which there is memory.
int64_t resident() {
  FILE* file = std::fopen("/proc/self/statm", "r");
  long total = 0, pages = 0;
  EXPECT_EQ(std::fscanf(file, "%ld %ld", &total, &pages), 2);
  std::fclose(file);
  return pages * sysconf(_SC_PAGESIZE);
}

TEST(WholeBlocks, ComeFromTheSourceAndGoBackToIt) {
  NoMemory source;
  WholeBlocks blocks(source);
  use(blocks, false, 128, 1);
  int64_t all = 0;
  for (const auto& [block, bytes] : source.sizes) all += bytes;
  EXPECT_GT(all, 0);
  EXPECT_EQ(blocks.cached_bytes(), all);
  blocks.release();
  EXPECT_TRUE(source.sizes.empty());
  EXPECT_EQ(blocks.cached_bytes(), 0);
  EXPECT_EQ(blocks.take(64), nullptr);
}

TEST(CutBlocks, AreOneAgainWhenAllCameBack) {
  CutBlocks blocks;
  use(blocks, true, 128 << 10, 2);
  blocks.release();
  EXPECT_EQ(blocks.cached_bytes(), 0);
  EXPECT_EQ(blocks.take(1), nullptr);
  EXPECT_EQ(blocks.take(2 << 20), nullptr);
}

TEST(CutBlocks, VaryingSizesShareMemory) {
  // Each a little smaller than the last, as pictures of different heights are.
  CutBlocks blocks;
  for (int64_t bytes = 200 << 20; bytes > 20 << 20; bytes = bytes * 10 / 11)
    blocks.give_back(any(blocks, bytes));
  EXPECT_EQ(blocks.system_allocations(), 1);
  // And larger: what is there grows.
  for (int64_t bytes = 20 << 20; bytes < 400 << 20; bytes = bytes * 11 / 10)
    blocks.give_back(any(blocks, bytes));
  EXPECT_LT(blocks.cached_bytes(), 402 << 20);
}

TEST(CutBlocks, GiveBackWhatLiesBetweenOthers) {
  constexpr int64_t kBytes = 64 << 20;
  CutBlocks blocks;
  Block *first = blocks.get(kBytes), *middle = blocks.get(kBytes), *last = blocks.get(kBytes);
  for (Block* block : {first, middle, last}) std::memset(block->at, 7, block->size);
  const int64_t full = resident(), asked = blocks.system_allocations();
  blocks.give_back(middle);
  EXPECT_EQ(blocks.cached_bytes(), kBytes);
  EXPECT_GT(resident(), full - kBytes / 4);
  blocks.release();
  EXPECT_EQ(blocks.cached_bytes(), 0);
  EXPECT_LT(resident(), full - kBytes / 2);
  EXPECT_EQ(first->at[kBytes - 1], 7);
  EXPECT_EQ(last->at[0], 7);
  // Its place is used again, for which the system has to give memory.
  Block* again = blocks.take(kBytes / 2);
  ASSERT_NE(again, nullptr);
  EXPECT_EQ(again->at, first->at + kBytes);
  EXPECT_EQ(blocks.system_allocations(), asked + 1);
  std::memset(again->at, 8, again->size);
  for (Block* block : {first, again, last}) blocks.give_back(block);
  EXPECT_EQ(blocks.cached_bytes(), kBytes / 2 * 5);
  blocks.release();
  EXPECT_LT(resident(), full - 5 * kBytes / 2);
}

TEST(CutBlocks, NeedNoMoreAddressesThanThereAre) {
  const auto child = [](auto&& f) {
    const pid_t pid = fork();
    if (pid == 0) _exit(f() ? 0 : 1);
    int status = 1;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
  };
  EXPECT_TRUE(child([] {
    constexpr int64_t kFree = 512 << 20, kBytes = 100 << 20;
    long pages = 0;
    FILE* file = std::fopen("/proc/self/statm", "r");
    if (std::fscanf(file, "%ld", &pages) != 1) return false;
    std::fclose(file);
    const auto limit = static_cast<rlim_t>(pages * sysconf(_SC_PAGESIZE) + kFree);
    const rlimit addresses{limit, limit};
    if (setrlimit(RLIMIT_AS, &addresses) != 0) return false;
    CutBlocks blocks;
    std::vector<Block*> taken;
    while (Block* block = any(blocks, kBytes)) taken.push_back(block);
    if (taken.size() < 3 || taken.size() > 5) return false;
    void* others = mmap(nullptr, 1 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (others == MAP_FAILED) return false;
    // What is given back is there for anything else.
    for (Block* block : taken) blocks.give_back(block);
    blocks.release();
    return any(blocks, 3 * kBytes) != nullptr;
  }));
}

}  // namespace
}  // namespace mixpl
