// The setting that ops run in: device, compute type, tape. Current per thread; each device has one
// executor thread, so a scope object is all it takes to change it.
#pragma once

#include "core/device.h"
#include "core/dtype.h"
#include "core/philox.h"

namespace mixpl {

class Tape;
class Trace;
struct Probe;

/// So many streams of random numbers a pass of loss() has for itself.
constexpr uint64_t kPassStreams = uint64_t{1} << 24;

struct Context {
  Device device;
  DType compute = DType::f32;  // type of activations; master weights stay f32
  bool allow_tf32 = false;     // f32 products on a GPU's tensor cores, factors of 11 bits
  bool training = false;       // live BatchNorm, dropout
  bool recomputing = false;    // for the second time: nothing outside the activations may change
  int64_t iteration = 0;       // optimizer steps that were taken before this pass
  Philox random;               // of this pass of loss(): this stream and kPassStreams - 1 after it
  Tape* tape = nullptr;        // null: nothing is recorded, no activation is kept
  Probe* probe = nullptr;  // of an analysis, which a pass of loss() shows itself to: models/probe.h
  Trace* trace = nullptr;  // of predict(), for who writes down its steps: core/trace.h

  /// The calling thread's context.
  static Context& current();
  /// As this one, for the pass of loss() that comes `passes` later: other random numbers.
  Context of_pass(size_t passes) const;
};

/// Replaces the thread's context until the scope ends.
class ContextScope {
 public:
  explicit ContextScope(const Context& context) : saved_(Context::current()) {
    Context::current() = context;
  }
  ~ContextScope() { Context::current() = saved_; }
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;

 private:
  Context saved_;
};

}  // namespace mixpl
