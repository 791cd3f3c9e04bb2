#include "core/copy_threads.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <vector>

namespace mixpl {
namespace {

constexpr size_t kMiB = 1 << 20;

// `bytes` from an odd place to another, in ranges that follow each other and hold what they should.
void expect_copies(CopyThreads& threads, size_t bytes, unsigned seed) {
  SCOPED_TRACE(testing::Message() << bytes << " bytes");
  std::vector<uint8_t> from(bytes + 3), to(bytes + 9, 7);
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<uint8_t>((i + seed) * 40503 >> 5);
  size_t next = 0;
  threads.copy(to.data() + 5, from.data() + 3, bytes, [&](size_t begin, size_t end) {
    EXPECT_EQ(begin, next);
    EXPECT_TRUE(end == bytes || end - begin >= kMiB) << begin << " to " << end;
    EXPECT_TRUE(std::equal(&to[5 + begin], &to[5 + end], &from[3 + begin]));
    next = end;
  });
  EXPECT_EQ(next, bytes);
  for (size_t i : {size_t{0}, size_t{4}, bytes + 5, bytes + 8}) EXPECT_EQ(to[i], 7);
}

TEST(CopyThreads, EverySizeByAnyNumberOfThreads) {
  const int saved = omp_get_max_threads();
  for (int allowed : {1, 2, 16}) {
    omp_set_num_threads(allowed);
    CopyThreads threads;
    for (size_t bytes : {size_t{0}, size_t{1}, kMiB / 8, kMiB / 8 + 1, kMiB - 1, kMiB, kMiB + 1,
                         3 * kMiB + 12345, 9 * kMiB})
      expect_copies(threads, bytes, allowed);
  }
  omp_set_num_threads(saved);
}

// Helpers that come late to one copy find the next.
TEST(CopyThreads, ManyInARow) {
  const int saved = omp_get_max_threads();
  omp_set_num_threads(4);
  CopyThreads threads;
  for (unsigned i = 0; i < 200; ++i) expect_copies(threads, 400'000 + i, i);
  omp_set_num_threads(saved);
}

TEST(CopyThreads, NobodyReadsAfterACallThatFailed) {
  const int saved = omp_get_max_threads();
  omp_set_num_threads(4);
  CopyThreads threads;
  for (int i = 0; i < 30; ++i) {
    // Freed at once: a thread that still copied would be seen by sanitizers, or fault.
    auto from = std::make_unique<std::vector<char>>(10 * kMiB, 'a');
    auto to = std::make_unique<std::vector<char>>(10 * kMiB);
    EXPECT_THROW(threads.copy(to->data(), from->data(), from->size(),
                              [](size_t, size_t) { throw std::runtime_error("no"); }),
                 std::runtime_error);
  }
  expect_copies(threads, 2 * kMiB, 1);
  omp_set_num_threads(saved);
}

}  // namespace
}  // namespace mixpl
