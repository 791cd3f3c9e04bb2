#include "core/cuda/fake_runtime/fake_runtime.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>

dim3 blockIdx, blockDim, gridDim, threadIdx;

struct FakeEvent {
  int pending = 0;  // records that the stream has not got to
  int at = 0;       // when the last one was reached
};

namespace mixpl::fake {
namespace {

std::deque<std::function<void()>> queue;  // one stream is all that a test uses
std::map<void*, size_t> pinned, device_blocks;
size_t device_bytes = 0;
int clock = 0;
cudaError_t last_error = cudaSuccess;

// What a call answers, and what cudaGetLastError would say next.
cudaError_t answer(cudaError_t error) {
  if (machine().fault != cudaSuccess) error = machine().fault;
  if (error != cudaSuccess) last_error = error;
  return error;
}
void run_one() {
  const auto work = std::move(queue.front());
  queue.pop_front();
  work();
  ++clock;
}

}  // namespace

Machine& machine() {
  static Machine m;
  return m;
}
void progress(int count) {
  while (count-- > 0 && !queue.empty()) run_one();
}
size_t queued() { return queue.size(); }

}  // namespace mixpl::fake

using namespace mixpl::fake;

cudaError_t cudaGetLastError() {
  const cudaError_t error = machine().fault != cudaSuccess         ? machine().fault
                            : machine().next_launch != cudaSuccess ? machine().next_launch
                                                                   : last_error;
  machine().next_launch = last_error = cudaSuccess;
  return error;
}
const char* cudaGetErrorString(cudaError_t) { return "the text of the error"; }
const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "cudaErrorOther";
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = machine().runtime;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = machine().driver;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = static_cast<int>(machine().devices.size());
  return answer(machine().listing);
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* out, int index) {
  const DeviceModel& d = machine().devices.at(index);
  std::strncpy(out->name, d.name.c_str(), sizeof out->name);
  out->totalGlobalMem = d.memory;
  out->major = d.major;
  out->minor = d.minor;
  out->multiProcessorCount = d.multiprocessors;
  return answer(cudaSuccess);
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int index) {
  *value = machine().devices.at(index).multiprocessors;
  return answer(cudaSuccess);
}
cudaError_t cudaSetDevice(int index) {
  const bool exists = index >= 0 && index < static_cast<int>(machine().devices.size());
  return answer(exists ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaMalloc(void** block, size_t bytes) {
  if (device_bytes + bytes > machine().devices[0].memory) return answer(cudaErrorMemoryAllocation);
  *block = std::malloc(bytes);
  device_blocks[*block] = bytes;
  device_bytes += bytes;
  return answer(cudaSuccess);
}
cudaError_t cudaFree(void* block) {
  while (!queue.empty()) run_one();
  device_bytes -= device_blocks.at(block);
  device_blocks.erase(block);
  std::free(block);
  return answer(cudaSuccess);
}
cudaError_t cudaMallocHost(void** block, size_t bytes) {
  if (machine().pinned_now + bytes > machine().pinned) return answer(cudaErrorMemoryAllocation);
  *block = std::malloc(bytes);
  pinned[*block] = bytes;
  machine().pinned_now += bytes;
  ++machine().pinned_allocations;
  return answer(cudaSuccess);
}
cudaError_t cudaFreeHost(void* block) {
  machine().pinned_now -= pinned.at(block);  // throws for what is not, or no longer, pinned
  pinned.erase(block);
  std::free(block);
  return answer(cudaSuccess);
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = machine().devices[0].memory;
  *free = *total - device_bytes;
  return answer(cudaSuccess);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t) {
  queue.push_back([=] { std::memcpy(to, from, bytes); });
  return answer(cudaSuccess);
}
cudaError_t cudaMemsetAsync(void* to, int byte, size_t bytes, cudaStream_t) {
  queue.push_back([=] { std::memset(to, byte, bytes); });
  return answer(cudaSuccess);
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = nullptr;
  return answer(cudaSuccess);
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  ++machine().waits;
  while (!queue.empty()) run_one();
  return answer(cudaSuccess);
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  if (machine().events_left == 0) return answer(cudaErrorMemoryAllocation);
  --machine().events_left;
  ++machine().live_events;
  *event = new FakeEvent;
  return answer(cudaSuccess);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  --machine().live_events;
  delete event;
  return answer(cudaSuccess);
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  ++event->pending;
  queue.push_back([event] {
    --event->pending;
    event->at = clock;
  });
  return answer(cudaSuccess);
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return answer(event->pending ? cudaErrorNotReady : cudaSuccess);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  ++machine().waits;
  while (event->pending) run_one();
  return answer(cudaSuccess);
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to) {
  *ms = static_cast<float>(to->at - from->at);
  return answer(cudaSuccess);
}
cudaError_t cudaFuncGetName(const char** name, const void*) {
  *name = "_Z4warpv";
  return answer(cudaSuccess);
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int bytes) {
  return answer(bytes > 227 << 10 ? cudaErrorInvalidValue : cudaSuccess);
}
