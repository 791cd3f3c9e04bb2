#include "core/context.h"

namespace mixpl {

Context& Context::current() {
  static thread_local Context context;
  return context;
}

}  // namespace mixpl
