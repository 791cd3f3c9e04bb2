#include "core/cuda/emulation/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <new>

#include "core/cuda/emulation/sanitizer.h"

#if !defined(__x86_64__) && !defined(__aarch64__)
#include <ucontext.h>
#endif

// void mixpl_switch_stack(void** from, void* to): saves the callee-saved registers on the stack,
// the stack pointer in *from, and takes up `to`. swapcontext would make a system call for the
// signal mask each time.
extern "C" void mixpl_switch_stack(void** from, void* to);

#if defined(__x86_64__)
asm(R"(
.text
.globl mixpl_switch_stack
.hidden mixpl_switch_stack
.type mixpl_switch_stack, @function
mixpl_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size mixpl_switch_stack, .-mixpl_switch_stack
)");
#elif defined(__aarch64__)
asm(R"(
.text
.globl mixpl_switch_stack
.hidden mixpl_switch_stack
.type mixpl_switch_stack, %function
mixpl_switch_stack:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size mixpl_switch_stack, .-mixpl_switch_stack
)");
#endif

namespace mixpl::cuda::emulation {
namespace {

constexpr size_t kGuard = 4096;  // below the stack: an overflow faults instead of spoiling another

// The stack pointer of a fiber that has not run yet: what mixpl_switch_stack pops, then `main`.
#if defined(__x86_64__)
void* first_position(char* top, Fiber::Main main) {
  auto* slot = reinterpret_cast<uint64_t*>(top);
  *--slot = 0;  // no return address; keeps the ABI's alignment at a function's entry
  *--slot = reinterpret_cast<uint64_t>(main);
  for (int i = 0; i < 6; ++i) *--slot = 0;
  return slot;
}
#elif defined(__aarch64__)
void* first_position(char* top, Fiber::Main main) {
  auto* slot = reinterpret_cast<uint64_t*>(top - 160);
  std::memset(slot, 0, 160);
  slot[11] = reinterpret_cast<uint64_t>(main);  // x30
  return slot;
}
#else
// Elsewhere with ucontext: slower, the same meaning. A position is a context on the heap.
extern "C" void mixpl_switch_stack(void** from, void* to) {
  if (!*from) *from = new ucontext_t;
  swapcontext(static_cast<ucontext_t*>(*from), static_cast<ucontext_t*>(to));
}
void* first_position(char* top, Fiber::Main main) {
  auto* context = new ucontext_t;
  getcontext(context);
  context->uc_stack.ss_sp = top - Fiber::kStackBytes;
  context->uc_stack.ss_size = Fiber::kStackBytes;
  context->uc_link = nullptr;
  makecontext(context, main, 0);
  return context;
}
#endif

}  // namespace

Fiber::Fiber() {
  void* memory = mmap(nullptr, kGuard + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, kGuard, PROT_NONE);
  stack_ = static_cast<char*>(memory) + kGuard;
}

Fiber::~Fiber() { munmap(stack_ - kGuard, kGuard + kStackBytes); }

void Fiber::reset(Main main) {
  // Frames that were abandoned have left their red zones behind.
  unpoison(stack_, kStackBytes);
  own_fake_stack_ = nullptr;
  position_ = first_position(stack_ + kStackBytes, main);
}

void Fiber::enter() {
  start_switch(&outer_fake_stack_, stack_, kStackBytes);
  mixpl_switch_stack(&return_to_, position_);
  finish_switch(outer_fake_stack_, nullptr, nullptr);
}

void Fiber::leave() {
  start_switch(&own_fake_stack_, outer_bottom_, outer_size_);
  mixpl_switch_stack(&position_, return_to_);
  finish_switch(own_fake_stack_, &outer_bottom_, &outer_size_);
}

void Fiber::started() { finish_switch(nullptr, &outer_bottom_, &outer_size_); }

}  // namespace mixpl::cuda::emulation
