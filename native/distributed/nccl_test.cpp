// NCCL's part of a sum: with the fake of the tests where there is no GPU, and alone on one.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <thread>

#include "core/cuda/runtime.h"
#include "distributed/collective.h"

namespace mixpl {
namespace {

class Nccl : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cuda_reason().empty()) GTEST_SKIP() << cuda_reason();
    if (!has_nccl()) GTEST_SKIP() << "no libnccl.so.2";
    device_ = Device::parse("cuda");
    using Copy = void (*)(void*, const void*, size_t);
    void* library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    const auto copies_by =
        reinterpret_cast<void (*)(Copy, Copy)>(dlsym(library, "fake_nccl_copies_by"));
    if (copies_by) copies_by(cuda::copy_to_host, cuda::copy_to_device);
  }
  CollectivePlace place(int rank, int processes) const { return {rank, processes, device_, ""}; }
  Device device_;
};

TEST_F(Nccl, OneProcess) {
  const auto one = open_nccl(place(0, 1));
  EXPECT_EQ(one->address().size(), 128u);
  one->connect({one->address()});
  Tensor values = Tensor::from(std::vector<float>{1, -2.5f, 3}, {3}, device_);
  one->sum(values);
  EXPECT_EQ(values.to_vector<float>(), (std::vector<float>{1, -2.5f, 3}));
  one->abort();
  EXPECT_THROW(one->sum(values), StateError);
  one->abort();
}

TEST_F(Nccl, ThreeProcesses) {
  if (!cuda::is_emulated()) GTEST_SKIP() << "NCCL wants a GPU for each";
  std::vector<std::unique_ptr<Collective>> all;
  std::vector<std::string> addresses;
  std::vector<Tensor> values;
  for (int rank = 0; rank < 3; ++rank) {
    all.push_back(open_nccl(place(rank, 3)));
    addresses.push_back(all.back()->address());
    const auto r = static_cast<float>(rank);
    values.push_back(Tensor::from(std::vector<float>{1 + r, 10 * r}, {2}, device_));
  }
  EXPECT_EQ(addresses[1], "");
  const auto everywhere = [](auto&& act) {
    std::vector<std::thread> threads;
    for (int rank = 0; rank < 3; ++rank) threads.emplace_back(act, rank);
    for (std::thread& thread : threads) thread.join();
  };
  everywhere([&](int rank) { all[rank]->connect(addresses); });
  for (int times = 1; times <= 2; ++times) {
    everywhere([&](int rank) { all[rank]->sum(values[rank]); });
    const float all_so_far = times == 1 ? 1 : 3;
    for (const Tensor& sum : values)
      EXPECT_EQ(sum.to_vector<float>(), (std::vector<float>{6 * all_so_far, 30 * all_so_far}));
  }
}

TEST_F(Nccl, SaysWhatIsWrong) {
  EXPECT_THROW(open_nccl({0, 1, Device::cpu(), ""}), StateError);
  const auto one = open_nccl(place(0, 1));
  Tensor values = Tensor::zeros({1}, DType::f32, device_);
  EXPECT_THROW(one->sum(values), StateError);
  try {
    one->connect({"short"});
    FAIL() << "an address of 5 bytes";
  } catch (const StateError& e) {
    EXPECT_STREQ(e.what(), "processes: NCCL's id must have 128 bytes, got 5");
  }
}

}  // namespace
}  // namespace mixpl
