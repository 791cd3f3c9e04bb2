// Copies of megabytes from memory to memory by several threads, of which none is waited for that
// has not begun: where decoders and loaders keep the machine's cores busy, the caller does it all.
// (A parallel loop would end with the last of its threads, whenever that gets a core.)
#pragma once

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace mixpl {

class CopyThreads {
 public:
  CopyThreads();
  ~CopyThreads();
  CopyThreads(const CopyThreads&) = delete;
  CopyThreads& operator=(const CopyThreads&) = delete;

  /// Returns when `from` was read. Calls copied(begin, end) on this thread for one range after the
  /// other, from the first byte to the last, as soon as it is there: of a MiB at least, but for the
  /// last. One call at a time; num_threads() copy at most.
  void copy(void* to, const void* from, size_t bytes,
            const std::function<void(size_t, size_t)>& copied);

 private:
  struct Job;
  void help();
  void start(int helpers);

  std::mutex mutex_;
  std::condition_variable wake_;
  std::shared_ptr<Job> job_;  // the newest
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace mixpl
