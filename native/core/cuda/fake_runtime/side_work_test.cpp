// Work beside a device's other work, on streams that do as little as they may until somebody waits
// for them: what has no order is done in the order that hurts.
#include "core/side_work.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "core/allocator.h"
#include "core/cuda/fake_runtime/fake_runtime.h"
#include "core/cuda/runtime.h"
#include "core/error.h"

namespace mixpl::cuda {
namespace {

const Device kGpu = Device::cuda(0);
constexpr int64_t kBytes = 1 << 16;

struct SideWorkTest : ::testing::Test {
  SideWorkTest() { reset(); }
  ~SideWorkTest() override { reset(); }
  static void reset() {
    fake::machine().events_left = -1;
    join_side_work(kGpu);
    fake::finish();
    release_cached_memory(kGpu);
  }
};

using Block = std::shared_ptr<void>;
Block block() { return allocate(kBytes, kGpu); }
void fill(const Block& b, int byte) { memset_device(b.get(), byte, kBytes); }
void copy(const Block& to, const Block& from) { copy_on_device(to.get(), from.get(), kBytes); }
/// All bytes of a block, when all that its device has to do is done.
int value_of(const Block& b) {
  synchronize();
  const auto* bytes = static_cast<const unsigned char*>(b.get());
  for (int64_t i = 1; i < kBytes; ++i)
    if (bytes[i] != bytes[0]) return -1;
  return bytes[0];
}
/// What the main stream alone sees of a block.
int seen_by_main(const Block& b) {
  std::vector<unsigned char> bytes(kBytes);
  copy_to_host(bytes.data(), b.get(), bytes.size());
  return bytes[0];
}

TEST_F(SideWorkTest, StartsBehindWhatWasThereAndIsNotWaitedFor) {
  const Block before = block(), main = block(), beside = block();
  fill(beside, 0);
  fill(before, 1);
  {
    SideWork scope(kGpu);
    copy(beside, before);
  }
  fill(main, 2);
  EXPECT_EQ(seen_by_main(main), 2);
  EXPECT_EQ(seen_by_main(beside), 0);  // the side stream has done nothing so far
  EXPECT_EQ(value_of(beside), 1);
}

TEST_F(SideWorkTest, IsDoneFirstWhereThereIsAChoice) {
  SideWork scope(kGpu);
  EXPECT_EQ(fake::machine().priorities, (std::vector<int>{0, -5}));
}

TEST_F(SideWorkTest, WhatFollowsAJoinIsBehindIt) {
  const Block a = block(), b = block();
  fill(a, 1);
  {
    SideWork scope(kGpu);
    fill(a, 2);
  }
  join_side_work(kGpu);
  copy(b, a);
  EXPECT_EQ(seen_by_main(b), 2);
}

// Nobody has to have joined: a training that failed midway, say.
TEST_F(SideWorkTest, TheNextForkIsBehindTheLastOneAndJoinsIt) {
  const Block a = block(), b = block();
  Block in = block();
  const void* const address = in.get();
  {
    SideWork scope(kGpu);
    fill(a, 1);
  }
  in.reset();
  {
    SideWork scope(kGpu);
    copy(b, a);
  }
  EXPECT_EQ(block().get(), address);
  EXPECT_EQ(seen_by_main(a), 1);
  join_side_work(kGpu);
  EXPECT_EQ(seen_by_main(b), 1);
}

// The side stream may still have to read what goes back meanwhile.
TEST_F(SideWorkTest, MemoryThatWasThereAtTheForkIsKeptUntilTheJoin) {
  const Block out = block();
  Block in = block();
  fill(in, 1);
  {
    SideWork scope(kGpu);
    copy(out, in);
  }
  const void* const address = in.get();
  in.reset();
  Block other = block();
  EXPECT_NE(other.get(), address);
  fill(other, 9);
  EXPECT_EQ(seen_by_main(other), 9);
  EXPECT_EQ(value_of(out), 1);
  join_side_work(kGpu);
  EXPECT_EQ(block().get(), address);
}

TEST_F(SideWorkTest, MemoryTakenAfterTheForkIsUsedAgainAtOnce) {
  const Block out = block();
  {
    SideWork scope(kGpu);
    fill(out, 1);
  }
  Block mine = block();
  const void* const address = mine.get();
  mine.reset();
  EXPECT_EQ(block().get(), address);
}

TEST_F(SideWorkTest, MemoryThatWasThereIsKeptWhenItGoesBackBesideToo) {
  const Block out = block();
  Block in = block();
  const void* const address = in.get();
  fill(in, 1);
  {
    SideWork scope(kGpu);
    copy(out, in);
    in.reset();
    EXPECT_NE(block().get(), address);
  }
  const Block other = block();
  EXPECT_NE(other.get(), address);
}

TEST_F(SideWorkTest, MemoryOfTheSideStreamIsItsOwnAndUsedAgainThere) {
  const void* address = nullptr;
  {
    SideWork scope(kGpu);
    Block temporary = block();
    address = temporary.get();
    temporary.reset();
    EXPECT_EQ(block().get(), address);
  }
  const Block main = block();
  EXPECT_NE(main.get(), address);
  join_side_work(kGpu);
  EXPECT_NE(block().get(), address);
  SideWork scope(kGpu);
  EXPECT_EQ(block().get(), address);
}

// What was made beside is read by others after the join, and may go back before they have.
TEST_F(SideWorkTest, WhatWasMadeBesideCanBeReadAfterItWentBack) {
  const Block out = block();
  Block made;
  {
    SideWork scope(kGpu);
    made = block();
    fill(made, 1);
  }
  join_side_work(kGpu);
  copy(out, made);
  const void* const address = made.get();
  made.reset();
  SideWork scope(kGpu);
  const Block next = block();
  EXPECT_EQ(next.get(), address);
  fill(next, 2);
  fake::progress(1 << 20, 1);  // the side stream ahead, as far as it may
  EXPECT_EQ(value_of(out), 1);
}

// As by the thread of JavaScript, which disposes tensors while the executor works.
TEST_F(SideWorkTest, MemoryThatGoesBackOnAnotherThreadWaitsForTheNextFork) {
  Block made;
  const void* address = nullptr;
  {
    SideWork scope(kGpu);
    made = block();
    address = made.get();
  }
  {
    SideWork scope(kGpu);
    std::thread([&] { made.reset(); }).join();
    EXPECT_NE(block().get(), address);
  }
  SideWork scope(kGpu);
  const Block one = block(), two = block();
  EXPECT_TRUE(one.get() == address || two.get() == address);
}

TEST_F(SideWorkTest, OtherThreadsStayOnTheirStreamAndInTheirMemory) {
  const Block out = block();
  fill(out, 0);
  Block theirs;
  {
    SideWork scope(kGpu);
    std::thread([&] {
      theirs = block();
      fill(out, 3);
      EXPECT_EQ(seen_by_main(out), 3);
    }).join();
    const void* const address = theirs.get();
    theirs.reset();
    EXPECT_NE(block().get(), address);
  }
}

TEST_F(SideWorkTest, CopiesAndReadbacksGoWithTheScope) {
  const Block a = block();
  fill(a, 1);
  std::vector<unsigned char> host(kBytes, 5);
  std::optional<Readback> read;
  {
    SideWork scope(kGpu);
    copy_to_device(a.get(), host.data(), host.size());
    read.emplace(a.get(), kBytes);
  }
  fill(block(), 7);
  const size_t queued = fake::queued();
  EXPECT_EQ(static_cast<const unsigned char*>(read->wait())[0], 5);
  EXPECT_GT(queued, fake::queued());
  EXPECT_GT(fake::queued(), 0u);  // the fill of the other stream, which nobody waited for
}

TEST_F(SideWorkTest, WaitingForADeviceWaitsForBothOfItsStreams) {
  const Block a = block();
  fill(a, 1);
  {
    SideWork scope(kGpu);
    fill(a, 2);
  }
  synchronize();
  EXPECT_EQ(fake::queued(), 0u);
}

TEST_F(SideWorkTest, StatisticsCountBothMemories) {
  const MemoryStats before = memory_stats(kGpu);
  Block in = block();
  {
    SideWork scope(kGpu);
    const Block side = block();
    EXPECT_EQ(memory_stats(kGpu).live_bytes, before.live_bytes + 2 * kBytes);
    in.reset();
  }
  EXPECT_EQ(memory_stats(kGpu).live_bytes, before.live_bytes);
  EXPECT_EQ(memory_stats(kGpu).cached_bytes, before.cached_bytes + 2 * kBytes);
  release_cached_memory(kGpu);  // waits for the device, so those that are kept, too
  EXPECT_EQ(memory_stats(kGpu).cached_bytes, 0);
}

TEST_F(SideWorkTest, WhatOneStreamHasCachedIsThereForTheOtherWhenMemoryIsOut) {
  const int64_t most = 600 << 20;
  {
    SideWork scope(kGpu);
    allocate(most, kGpu);
  }
  EXPECT_NE(allocate(most, kGpu), nullptr);
}

TEST_F(SideWorkTest, AScopeInAScopeIsRefused) {
  SideWork scope(kGpu);
  EXPECT_THROW(SideWork inner(kGpu), StateError);
  EXPECT_THROW(join_side_work(kGpu), StateError);
}

TEST_F(SideWorkTest, AForkThatFailsLeavesEverythingAsItWas) {
  fake::machine().fault = cudaErrorLaunchFailure;
  EXPECT_THROW(SideWork scope(kGpu), DeviceError);
  fake::machine().fault = cudaSuccess;
  Block a = block();
  const void* const address = a.get();
  a.reset();
  EXPECT_EQ(block().get(), address);  // nothing is open
  SideWork scope(kGpu);
}

TEST_F(SideWorkTest, OnTheCpuItIsNothing) {
  SideWork scope(Device::cpu());
  const Block a = allocate(64, Device::cpu());
  join_side_work(Device::cpu());
}

}  // namespace
}  // namespace mixpl::cuda
