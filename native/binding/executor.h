// One native thread per device with a FIFO queue; JavaScript gets promises and never waits.
#pragma once

#include <napi.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "binding/errors.h"
#include "core/device.h"

namespace mixpl::binding {

/// Runs on the JS thread when a job ended well: makes the promise's value.
using Finish = std::function<Napi::Value(Napi::Env)>;
/// Runs on the executor's thread; captures no Napi type.
using Job = std::function<Finish()>;

/// True: nobody waits for a job any more, which is then not begun.
using Cancelled = std::shared_ptr<const std::atomic<bool>>;

class Executor {
 public:
  /// Lives until the environment is torn down, and stops its thread as that begins.
  Executor(Napi::Env env, Device device);
  ~Executor();

  /// Queues the job of `call`, which errors for want of memory name. `keep` are JS values (buffers)
  /// that must outlive it.
  Napi::Promise post(Napi::Env env, std::string call, Job job,
                     const std::vector<Napi::Value>& keep = {}, Cancelled cancelled = nullptr);

  /// Threads for loops and oneDNN inside the executor; takes effect with the next job.
  void set_num_threads(int threads);

 private:
  struct Item;
  void run();
  void stop();
  void complete(Napi::Env env);
  static void settle(Napi::Env env, Item& item);

  Device device_;
  Napi::ThreadSafeFunction deliver_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::unique_ptr<Item>> queue_, done_;
  bool stopping_ = false;
  int threads_ = 0;
  int pending_ = 0;  // JS thread only
  std::thread thread_;
};

/// The environment's executor for `device`, started on first use.
Executor& executor_for(Napi::Env env, Device device);

}  // namespace mixpl::binding
