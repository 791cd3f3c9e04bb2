#include "core/context.h"

namespace mixpl {

Context& Context::current() {
  static thread_local Context context;
  return context;
}

Context Context::of_pass(size_t passes) const {
  Context context = *this;
  context.random.stream += passes * kPassStreams;
  return context;
}

}  // namespace mixpl
