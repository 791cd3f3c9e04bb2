// Stackful coroutines for the threads of an emulated block: a switch is a dozen instructions.
#pragma once

#include <cstddef>

namespace mixpl::cuda::emulation {

/// Runs `main` on a stack of its own whenever somebody switches to it. `main` must never return.
class Fiber {
 public:
  using Main = void (*)();
  /// 256 KiB that are only committed when touched; unoptimised frames under AddressSanitizer are
  /// large.
  static constexpr size_t kStackBytes = 256 << 10;

  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Forgets whatever it was doing, without unwinding, and starts over at the next switch.
  void reset(Main main);

  /// Leaves the calling thread's own stack for this fiber, until it calls leave().
  void enter();
  /// Called on the fiber: back to where enter() was called.
  void leave();
  /// First statement of `main`.
  void started();

 private:
  char* stack_ = nullptr;
  void* position_ = nullptr;   // saved stack pointer of the fiber
  void* return_to_ = nullptr;  // saved stack pointer of who entered it
  // What AddressSanitizer needs to follow the switch.
  void* own_fake_stack_ = nullptr;
  void* outer_fake_stack_ = nullptr;
  const void* outer_bottom_ = nullptr;
  size_t outer_size_ = 0;
};

}  // namespace mixpl::cuda::emulation
