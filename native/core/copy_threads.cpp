#include "core/copy_threads.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <system_error>

#include "core/parallel.h"

namespace mixpl {
namespace {

constexpr size_t kPart = 128 << 10;  // some 15 microseconds of one thread
constexpr size_t kRange = 8;         // parts that are worth a call
constexpr int kMostHelpers = 3;      // four threads read as fast as PCIe carries away

}  // namespace

struct CopyThreads::Job {
  Job(void* to, const void* from, size_t bytes)
      : to(static_cast<char*>(to)),
        from(static_cast<const char*>(from)),
        bytes(bytes),
        parts((bytes + kPart - 1) / kPart),
        done(parts) {}

  size_t end_of(size_t part) const { return std::min((part + 1) * kPart, bytes); }
  /// false: all parts are taken.
  bool copy_a_part() {
    const size_t part = next.fetch_add(1);
    if (part >= parts) return false;
    std::memcpy(to + part * kPart, from + part * kPart, end_of(part) - part * kPart);
    done[part].store(true, std::memory_order_release);
    return true;
  }
  bool is_done(size_t part) const { return done[part].load(std::memory_order_acquire); }
  /// Nobody reads `from` afterwards.
  void finish() {
    const size_t taken = std::min(next.exchange(parts), parts);
    for (size_t part = 0; part < taken; ++part)
      while (!is_done(part)) std::this_thread::yield();
  }

  char* const to;
  const char* const from;
  const size_t bytes, parts;
  std::atomic<size_t> next{0};
  std::vector<std::atomic<bool>> done;
};

CopyThreads::CopyThreads() = default;

CopyThreads::~CopyThreads() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& t : threads_) t.join();
}

void CopyThreads::help() {
  std::shared_ptr<Job> job;
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stopping_ || job_ != job; });
    if (stopping_) return;
    job = job_;
    lock.unlock();
    while (job->copy_a_part()) {
    }
    lock.lock();
  }
}

void CopyThreads::start(int helpers) {
  try {
    while (static_cast<int>(threads_.size()) < helpers) threads_.emplace_back([this] { help(); });
  } catch (const std::system_error&) {
    // No more threads to be had: those that there are will do.
  }
}

void CopyThreads::copy(void* to, const void* from, size_t bytes,
                       const std::function<void(size_t, size_t)>& copied) {
  if (bytes == 0) return;
  const auto job = std::make_shared<Job>(to, from, bytes);
  if (const int helpers = std::min(kMostHelpers, num_threads() - 1);
      helpers > 0 && job->parts > 2) {
    {
      std::lock_guard lock(mutex_);
      job_ = job;
    }
    wake_.notify_all();
    start(helpers);
  }
  struct Finish {
    Job& job;
    ~Finish() { job.finish(); }
  } const finish{*job};  // also when `copied` throws
  for (size_t told = 0, ready = 0; told < job->parts;) {
    while (ready < job->parts && job->is_done(ready)) ++ready;
    if (ready == job->parts || ready - told >= kRange) {
      copied(told * kPart, job->end_of(ready - 1));
      told = ready;
    } else if (!job->copy_a_part()) {
      std::this_thread::yield();
    }
  }
}

}  // namespace mixpl
