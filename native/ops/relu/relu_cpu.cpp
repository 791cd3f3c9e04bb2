#include "core/parallel.h"
#include "ops/relu/relu.h"

namespace mixpl::cpu {

void relu_forward(const Tensor& x, Tensor& y) {
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_chunks(x.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) out[i] = float(in[i]) > 0 ? in[i] : T(0.0f);
    });
  });
}

}  // namespace mixpl::cpu
