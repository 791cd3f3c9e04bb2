// What a test says of the devices behind fake_runtime/cuda_runtime.h, and what it sees of them.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <string>
#include <vector>

namespace mixpl::fake {

struct DeviceModel {
  std::string name = "Fake GPU";
  int major = 9, minor = 0, multiprocessors = 4;
  size_t memory = 1 << 30;
};

struct Machine {
  std::vector<DeviceModel> devices{DeviceModel{}};
  int driver = 13000, runtime = 13000;
  size_t pinned = size_t{1} << 32;        // host memory that can be pinned
  cudaError_t listing = cudaSuccess;      // what cudaGetDeviceCount answers
  cudaError_t fault = cudaSuccess;        // of a kernel: every call says so from now on
  cudaError_t next_launch = cudaSuccess;  // of one launch; forgotten when it was told
  int events_left = -1;                   // so many more can be made; -1: any number

  // What was seen.
  size_t pinned_now = 0;
  int pinned_allocations = 0, waits = 0, live_events = 0;
  std::vector<int> priorities;  // of streams, by the order in which they were made
};
Machine& machine();

/// Work is queued and done when somebody waits for it, or here: the oldest `count` of one stream,
/// by the order in which they were made.
void progress(int count, size_t stream = 0);
/// All of it.
void finish();
/// Copies and events that are not done yet.
size_t queued();

}  // namespace mixpl::fake
