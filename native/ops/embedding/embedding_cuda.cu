#include "core/cuda/packs.h"
#include "ops/embedding/embedding.h"

namespace mixpl::cuda {
namespace {

template <typename T>
struct Forward {
  const float* table;
  const int32_t* index;
  T* y;
  Divider columns;
  MIXPL_DEVICE void operator()(int64_t i) const {
    uint32_t column = static_cast<uint32_t>(i);
    const int32_t row = index[columns.split(column)];
    y[i] = T(row < 0 ? 0.0f : table[int64_t{row} * columns.divisor() + column]);
  }
};

// A thread goes through the whole index for its place in the table: a warp's places lie in one row
// most of the time, so that its loads are the same or neighbours.
template <typename T>
struct Backward {
  const T* dy;
  const int32_t* index;
  float* dtable;
  int64_t count;
  Divider columns;
  MIXPL_DEVICE void operator()(int64_t i) const {
    uint32_t column = static_cast<uint32_t>(i);
    const int32_t row = static_cast<int32_t>(columns.split(column));
    float sum = 0;
    for (int64_t n = 0; n < count; ++n)
      if (index[n] == row) sum += float(dy[n * columns.divisor() + column]);
    dtable[i] = sum;
  }
};

}  // namespace

void embedding_forward(const Tensor& table, const Tensor& index, Tensor& y) {
  index_of(y.numel());
  dispatch_floating(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_each(y.numel(), Forward<T>{table.data<float>(), index.data<int32_t>(), y.data<T>(),
                                   Divider(table.size(1))});
  });
}

void embedding_backward(const Tensor& dy, const Tensor& index, Tensor& dtable) {
  index_of(dtable.numel());
  dispatch_floating(dy.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_each(dtable.numel(), Backward<T>{dy.data<T>(), index.data<int32_t>(), dtable.data<float>(),
                                         index.numel(), Divider(dtable.size(1))});
  });
}

}  // namespace mixpl::cuda
