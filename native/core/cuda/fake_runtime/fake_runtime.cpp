#include "core/cuda/fake_runtime/fake_runtime.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

dim3 blockIdx, blockDim, gridDim, threadIdx;

// A point in a stream.
struct Record {
  FakeStream* stream;
  bool reached = false;
  int at = 0;  // when it was
};
struct FakeEvent {
  std::shared_ptr<Record> last = nullptr;
  bool is_past() const { return !last || last->reached; }
};
struct FakeStream {
  struct Work {
    std::function<void()> run;
    std::shared_ptr<Record> after = nullptr;  // of another stream
  };
  std::deque<Work> queue = {};
};

namespace mixpl::fake {
namespace {

std::vector<std::unique_ptr<FakeStream>> streams;
std::map<void*, size_t> pinned, device_blocks;
size_t device_bytes = 0;
int ticks = 0;
cudaError_t last_error = cudaSuccess;

// What a call answers, and what cudaGetLastError would say next.
cudaError_t answer(cudaError_t error) {
  if (machine().fault != cudaSuccess) error = machine().fault;
  if (error != cudaSuccess) last_error = error;
  return error;
}
// As late as may be: of other streams only what this one's next work waits for.
void run_one(FakeStream& stream) {
  const FakeStream::Work work = std::move(stream.queue.front());
  stream.queue.pop_front();
  while (work.after && !work.after->reached) run_one(*work.after->stream);
  work.run();
  ++ticks;
}
void run_all(FakeStream& stream) {
  while (!stream.queue.empty()) run_one(stream);
}

}  // namespace

Machine& machine() {
  static Machine m;
  return m;
}
void progress(int count, size_t stream) {
  if (stream >= streams.size()) return;
  while (count-- > 0 && !streams[stream]->queue.empty()) run_one(*streams[stream]);
}
void finish() {
  for (const auto& stream : streams) run_all(*stream);
}
size_t queued() {
  size_t count = 0;
  for (const auto& stream : streams) count += stream->queue.size();
  return count;
}

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
  finish();
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
                            cudaStream_t stream) {
  stream->queue.push_back({[=] { std::memcpy(to, from, bytes); }});
  return answer(cudaSuccess);
}
cudaError_t cudaMemsetAsync(void* to, int byte, size_t bytes, cudaStream_t stream) {
  stream->queue.push_back({[=] { std::memset(to, byte, bytes); }});
  return answer(cudaSuccess);
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* lowest, int* highest) {
  *lowest = 0;
  *highest = -5;
  return answer(cudaSuccess);
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, 0);
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int priority) {
  machine().priorities.push_back(priority);
  streams.push_back(std::make_unique<FakeStream>());
  *stream = streams.back().get();
  return answer(cudaSuccess);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  stream->queue.push_back({[] {}, event->last});
  return answer(cudaSuccess);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  ++machine().waits;
  run_all(*stream);
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
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const auto record = std::make_shared<Record>(Record{stream});
  event->last = record;
  stream->queue.push_back({[record] {
    record->reached = true;
    record->at = ticks;
  }});
  return answer(cudaSuccess);
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return answer(event->is_past() ? cudaSuccess : cudaErrorNotReady);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  ++machine().waits;
  while (!event->is_past()) run_one(*event->last->stream);
  return answer(cudaSuccess);
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to) {
  *ms = static_cast<float>(to->last->at - from->last->at);
  return answer(cudaSuccess);
}
cudaError_t cudaFuncGetName(const char** name, const void*) {
  *name = "_Z4warpv";
  return answer(cudaSuccess);
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int bytes) {
  return answer(bytes > 227 << 10 ? cudaErrorInvalidValue : cudaSuccess);
}
