#include "binding/executor.h"

#include <omp.h>

#include <algorithm>

#include "binding/addon.h"
#include "core/context.h"

namespace mixpl::binding {

struct Executor::Item {
  Item(Napi::Env env, std::string call, Job job)
      : deferred(env), call(std::move(call)), job(std::move(job)) {}
  Napi::Promise::Deferred deferred;
  std::string call;
  Job job;
  std::vector<Napi::Reference<Napi::Value>> keep;
  Cancelled cancelled;
  Finish finish;
  bool failed = false;
  ErrorInfo error;
};

Executor::Executor(Napi::Env env, Device device) : device_(device) {
  deliver_ = Napi::ThreadSafeFunction::New(
      env, Napi::Function::New(env, [](const Napi::CallbackInfo&) {}), "mixpl executor", 0, 1);
  deliver_.Unref(env);
  thread_ = std::thread([this] { run(); });
  // Hooks run in reverse order: this one before deliver_'s own, after which it is no more.
  env.AddCleanupHook([this] { stop(); });
}

Executor::~Executor() = default;  // where Item is known

void Executor::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    queue_.clear();
  }
  wake_.notify_all();
  thread_.join();
  done_.clear();  // nobody is told of these any more, and they may hold a detector
}

void Executor::set_num_threads(int threads) {
  std::lock_guard lock(mutex_);
  threads_ = threads;
}

Napi::Promise Executor::post(Napi::Env env, std::string call, Job job,
                             const std::vector<Napi::Value>& keep, Cancelled cancelled) {
  auto item = std::make_unique<Item>(env, std::move(call), std::move(job));
  item->cancelled = std::move(cancelled);
  Napi::Promise promise = item->deferred.Promise();
  for (const Napi::Value& value : keep)
    if (value.IsObject()) item->keep.push_back(Napi::Reference<Napi::Value>::New(value, 1));
  // A pending job keeps the process alive; an idle executor does not.
  if (pending_++ == 0) deliver_.Ref(env);
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(item));
  }
  wake_.notify_one();
  return promise;
}

void Executor::run() {
  Context::current().device = device_;
  for (;;) {
    std::unique_ptr<Item> item;
    int threads;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (stopping_) break;
      item = std::move(queue_.front());
      queue_.pop_front();
      threads = threads_;
    }
    // oneDNN waits for as many as OpenMP promises, and would do so for ever beyond
    // OMP_THREAD_LIMIT.
    if (threads == 0) threads = omp_get_max_threads();
    omp_set_num_threads(std::min(threads, omp_get_thread_limit()));
    try {
      if (item->cancelled && *item->cancelled)
        throw StateError(str(item->call, ": was cancelled before it began"));
      item->finish = item->job();
    } catch (...) {
      item->failed = true;
      item->error = describe_current_exception(item->call);
    }
    item->job = nullptr;  // frees what it captured here, not on the JS thread
    {
      std::lock_guard lock(mutex_);
      done_.push_back(std::move(item));
    }
    const auto status =
        deliver_.BlockingCall([this](Napi::Env env, Napi::Function) { complete(env); });
    if (status != napi_ok) break;  // the environment is going away
  }
  deliver_.Release();
}

// The longest that is done. As the environment ends, Node forgets calls that wait for their turn:
// so it is here that their items are.
void Executor::complete(Napi::Env env) {
  std::unique_ptr<Item> item;
  {
    std::lock_guard lock(mutex_);
    item = std::move(done_.front());
    done_.pop_front();
  }
  if (--pending_ == 0) deliver_.Unref(env);
  Napi::HandleScope scope(env);
  try {
    item->keep.clear();
    settle(env, *item);
  } catch (const Napi::Error&) {
    // JavaScript runs no more (a worker's process.exit()), so nobody waits either; what leaves this
    // function would end the process.
  }
}

void Executor::settle(Napi::Env env, Item& item) {
  if (!item.failed) {
    try {
      item.deferred.Resolve(item.finish ? item.finish(env) : env.Undefined());
      return;
    } catch (const Napi::Error& e) {
      item.deferred.Reject(e.Value());
      return;
    } catch (...) {
      item.error = describe_current_exception();
    }
  }
  item.deferred.Reject(make_error(env, item.error).Value());
}

Executor& executor_for(Napi::Env env, Device device) {
  AddonState& state = *env.GetInstanceData<AddonState>();
  auto& slot = state.executors[to_string(device)];
  if (!slot) {
    slot = std::make_unique<Executor>(env, device);
    if (state.num_threads > 0) slot->set_num_threads(state.num_threads);
  }
  return *slot;
}

}  // namespace mixpl::binding
