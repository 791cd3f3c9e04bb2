// runtime_cuda.cu and staging_cuda.cu without a GPU: on a CUDA runtime of the test's making, whose
// devices do copies when somebody waits for them and fail when told to.
#include "core/cuda/runtime.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cstring>
#include <functional>
#include <numeric>

#include "core/allocator.h"
#include "core/cuda/fake_runtime/fake_runtime.h"
#include "core/cuda/launch.h"
#include "core/error.h"

namespace mixpl::cuda {
namespace {

using fake::machine;

// The devices of a process stay from test to test; so does what they have pinned.
struct Runtime : ::testing::Test {
  ~Runtime() override {
    machine().fault = machine().listing = machine().next_launch = cudaSuccess;
    machine().devices = {fake::DeviceModel{}};
    machine().driver = machine().runtime = 13000;
    machine().events_left = -1;
    machine().pinned = size_t{1} << 32;
    fake::finish();
  }
};

std::vector<int> numbers(size_t count, int first) {
  std::vector<int> values(count);
  std::iota(values.begin(), values.end(), first);
  return values;
}

template <class E>
std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const E& error) {
    return error.what();
  }
  ADD_FAILURE() << "nothing, or something else, was thrown";
  return "";
}
#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST_F(Runtime, HostValuesMayChangeAsSoonAsACopyReturns) {
  const int waits = machine().waits;
  std::vector<std::vector<int>> device(20, std::vector<int>(5000));
  for (int i = 0; i < 20; ++i) {
    std::vector<int> host = numbers(5000, 10 * i);
    copy_to_device(device[i].data(), host.data(), host.size() * sizeof(int));
    std::fill(host.begin(), host.end(), -1);
  }
  EXPECT_EQ(machine().waits, waits);
  std::vector<int> back(5000);
  for (int i = 0; i < 20; ++i) {
    copy_to_host(back.data(), device[i].data(), back.size() * sizeof(int));
    EXPECT_EQ(back, numbers(5000, 10 * i));
  }
}

TEST_F(Runtime, CopiesThatFollowEachOtherReuseWhatIsPinned) {
  std::vector<int> device(1000), host = numbers(1000, 0);
  copy_to_device(device.data(), host.data(), 4000);
  synchronize();
  const int allocations = machine().pinned_allocations;
  for (int i = 0; i < 50; ++i) {
    copy_to_device(device.data(), host.data(), 4000);
    fake::progress(2);
  }
  EXPECT_EQ(machine().pinned_allocations, allocations);
}

// Before the next test, which leaves blocks that can be waited for.
TEST_F(Runtime, WithoutHostMemoryToPinItSaysHowMuchAndGoesOn) {
  machine().pinned = machine().pinned_now;
  std::vector<char> host(40 << 20, 'a'), device(40 << 20);
  const auto fill = [&] { copy_to_device(device.data(), host.data(), host.size()); };
  const std::string message = message_of<OutOfMemoryError>(fill);
  EXPECT_HAS(message, "wanted 67108864 bytes of host memory that a GPU can copy from");
  machine().pinned = size_t{1} << 32;
  fill();
  synchronize();
  EXPECT_TRUE(device == host);
}

TEST_F(Runtime, LargeCopiesPinABoundedPartOfTheHost) {
  constexpr size_t kBytes = 70 << 20;
  std::vector<char> host(kBytes), device(kBytes);
  for (size_t i = 0; i < 70; ++i) std::memset(&host[i << 20], static_cast<int>(i), 1 << 20);
  for (int i = 0; i < 8; ++i) copy_to_device(device.data(), host.data(), kBytes);
  EXPECT_LE(machine().pinned_now, size_t{257} << 20);
  synchronize();
  EXPECT_TRUE(device == host);
}

TEST_F(Runtime, LargeCopiesStartBeforeAllOfThemIsRead) {
  std::vector<char> host(3'300'000, 'b'), device(host.size());
  synchronize();
  const int saved = omp_get_max_threads();
  omp_set_num_threads(1);  // further ones may have more to tell at once
  copy_to_device(device.data(), host.data(), host.size());
  omp_set_num_threads(saved);
  EXPECT_EQ(fake::queued(), 4u + 1u);  // an event
  std::fill(host.begin(), host.end(), 'c');
  synchronize();
  EXPECT_EQ(device, std::vector<char>(host.size(), 'b'));
}

TEST_F(Runtime, NothingIsLostWhenNoEventCanBeMade) {
  fake::finish();
  std::vector<std::unique_ptr<Readback>> busy;
  int value = 7;
  machine().events_left = 0;
  const size_t pinned = machine().pinned_now;
  const int events = machine().live_events;
  const std::string message = message_of<OutOfMemoryError>([&] {
    for (int i = 0; i < 100; ++i) busy.push_back(std::make_unique<Readback>(&value, 4));
  });
  EXPECT_HAS(message, "cudaEventCreate");
  EXPECT_EQ(machine().pinned_now, pinned);
  EXPECT_EQ(machine().live_events, events);
}

TEST_F(Runtime, ReadbacksHoldWhatWasThereWhenTheyWereMade) {
  std::vector<int> device(100);
  std::vector<std::unique_ptr<Readback>> reads;
  for (int i = 0; i < 5; ++i) {
    const std::vector<int> host = numbers(100, i);
    copy_to_device(device.data(), host.data(), 400);
    reads.push_back(std::make_unique<Readback>(device.data(), 400));
  }
  for (int i = 4; i >= 0; --i) {
    const int* values = static_cast<const int*>(reads[i]->wait());
    EXPECT_EQ(std::vector<int>(values, values + 100), numbers(100, i));
  }
  // One that was never waited for goes back while its copy is under way: nobody else gets it yet.
  reads.clear();
  { const Readback dropped(device.data(), 400); }
  Readback next(device.data(), 400);
  EXPECT_EQ(static_cast<const int*>(next.wait())[0], 4);
}

TEST_F(Runtime, AWaitThatWasPaidForIsCounted) {
  const int64_t before = synchronisations();
  int value = 1, back = 0;
  copy_to_device(&value, &value, 4);
  EXPECT_EQ(synchronisations(), before);
  copy_to_host(&back, &value, 4);
  Readback(&value, 4).wait();
  synchronize();
  EXPECT_EQ(synchronisations(), before + 3);
}

void warp() {}

TEST_F(Runtime, ALaunchThatFailsIsNamedAndForgotten) {
  machine().next_launch = cudaErrorInvalidConfiguration;
  const std::string message = message_of<DeviceError>([] { launch(warp, Grid(3), 64, 100); });
  EXPECT_HAS(message, "warp() in 3x1x1 blocks of 64x1x1 threads with 100 bytes");
  EXPECT_EQ(message.find("earlier"), std::string::npos) << message;
  launch(warp, Grid(3), 64, 100);
}

TEST_F(Runtime, AFaultOfAnEarlierKernelIsNotBlamedOnTheNext) {
  machine().fault = cudaErrorIllegalAddress;
  EXPECT_HAS(message_of<DeviceError>([] { launch(warp, Grid(1), 32, 0); }),
             "an earlier kernel did it; set MIXPL_CUDA_SYNC=1");
  EXPECT_HAS(message_of<DeviceError>([] { synchronize(); }), "an earlier kernel did it");
  int value = 0;
  EXPECT_HAS(message_of<DeviceError>([&] { copy_to_host(&value, &value, 4); }),
             "an earlier kernel did it");
}

TEST_F(Runtime, MoreSharedMemoryThanThereIsIsRefused) {
  EXPECT_HAS(message_of<DeviceError>([] { launch(warp, Grid(1), 32, 300 << 10); }),
             "cudaFuncSetAttribute");
}

TEST_F(Runtime, OutOfMemoryNamesWhatIsFree) {
  const Device gpu = Device::cuda(0);
  const auto half = allocate(640 << 20, gpu);
  const std::string message = message_of<OutOfMemoryError>([&] { allocate(640 << 20, gpu); });
  EXPECT_HAS(message, "wanted 671088640 bytes on cuda:0, where 402653184 of 1073741824 bytes are");
  EXPECT_HAS(message, "tensors hold 671088640");
  allocate(300 << 20, gpu);  // and what is left can be had
}

TEST_F(Runtime, WhyThereIsNoGpu) {
  machine().driver = 0;
  EXPECT_EQ(unusable_reason(), "no NVIDIA driver was found");
  machine().driver = 12040;
  machine().listing = cudaErrorInsufficientDriver;
  EXPECT_EQ(unusable_reason(),
            "the NVIDIA driver is too old (it offers CUDA 12.4, this build needs 13.0)");
  machine().listing = cudaErrorNoDevice;
  EXPECT_EQ(unusable_reason(), "the NVIDIA driver shows no GPU");
  machine().listing = cudaSuccess;
  machine().devices.clear();
  EXPECT_EQ(unusable_reason(), "the NVIDIA driver shows no GPU");
}

// This binary says that it has code for 80, 90a and 120 and later.
TEST_F(Runtime, WhichArchitecturesItRunsOn) {
  EXPECT_EQ(architectures(), (std::vector<std::string>{"80", "90a", "120+"}));
  const auto usable = [](int major, int minor) {
    machine().devices[0].major = major;
    machine().devices[0].minor = minor;
    return list_devices().at(0).usable;
  };
  EXPECT_FALSE(usable(7, 5));
  EXPECT_TRUE(usable(8, 0));
  EXPECT_TRUE(usable(8, 6));  // as 80
  EXPECT_TRUE(usable(9, 0));
  EXPECT_FALSE(usable(9, 1));  // 90a is for exactly that one
  EXPECT_FALSE(usable(10, 0));
  EXPECT_HAS(unusable_reason(), "has architecture 100, this build has code for 80, 90a, 120+");
  EXPECT_HAS(unusable_reason(), "MIXPL_RELEASE=ON");
  EXPECT_TRUE(usable(12, 0));
  EXPECT_TRUE(usable(12, 1));
  EXPECT_TRUE(usable(13, 0));  // from PTX
}

TEST_F(Runtime, TheFirstUsableOfSeveral) {
  machine().devices = {fake::DeviceModel{"Old", 7, 0}, fake::DeviceModel{"New", 9, 0}};
  EXPECT_EQ(Device::parse("cuda"), Device::cuda(1));
  EXPECT_EQ(Device::parse("auto"), Device::cuda(1));
  EXPECT_HAS(message_of<DeviceError>([] { Device::parse("cuda:0"); }), "'Old' has architecture 70");
  EXPECT_HAS(message_of<DeviceError>([] { Device::parse("cuda:2"); }), "below 'cuda:2'");
}

TEST_F(Runtime, EventsTellTheTimeBetweenThem) {
  Event start, stop;
  start.record();
  int value = 0;
  copy_on_device(&value, &value, 4);
  memset_device(&value, 1, 4);
  stop.record();
  EXPECT_EQ(stop.ms_since(start), 3);
  EXPECT_EQ(value, 0x01010101);
}

}  // namespace
}  // namespace mixpl::cuda
