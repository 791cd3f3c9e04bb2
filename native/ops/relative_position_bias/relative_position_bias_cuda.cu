#include "core/cuda/packs.h"
#include "ops/relative_position_bias/relative_position_bias.h"
#include "ops/relative_position_bias/relative_position_bias_math.h"

namespace mixpl::cuda {
namespace {

// The table is small enough for the caches; what is written lies side by side.
struct Forward {
  const float* table;
  float* bias;
  int32_t heads;
  Divider tokens, size;

  template <int N>
  MIXPL_DEVICE void values(int64_t at) const {
    Vec<float, N> v;
    for (int n = 0; n < N; ++n) {
      uint32_t key_x = static_cast<uint32_t>(at) + n;
      uint32_t query_x = tokens.split(key_x);  // head and query; the rest is the key
      const uint32_t head = tokens.split(query_x);
      const uint32_t key_y = size.split(key_x), query_y = size.split(query_x);
      const int32_t row = bias_row(size.divisor(), query_y, query_x, key_y, key_x);
      v[n] = table[int64_t{row} * heads + head];
    }
    store_vec(bias + at, v);
  }
};

// A thread for each distance, those of a head side by side: they read the same keys or neighbours.
struct Backward {
  const float* dbias;
  float* dtable;
  int64_t heads;
  int32_t size;
  Divider distances;

  MIXPL_DEVICE void operator()(int64_t i) const {
    uint32_t row = static_cast<uint32_t>(i);
    const uint32_t head = distances.split(row);
    const int64_t tokens = int64_t{size} * size;
    dtable[row * heads + head] =
        bias_row_sum(dbias + head * tokens * tokens, size, static_cast<int32_t>(row));
  }
};

}  // namespace

void relative_position_bias_forward(const Tensor& table, int64_t size, Tensor& bias) {
  index_of(bias.numel());
  for_all_values<4>(bias.numel(), Forward{table.data<float>(), bias.data<float>(),
                                          static_cast<int32_t>(table.size(1)), Divider(size * size),
                                          Divider(size)});
}

void relative_position_bias_backward(const Tensor& dbias, int64_t size, Tensor& dtable) {
  index_of(dtable.numel());
  for_each(dtable.numel(), Backward{dbias.data<float>(), dtable.data<float>(), dtable.size(1),
                                    static_cast<int32_t>(size), Divider(dtable.size(0))});
}

}  // namespace mixpl::cuda
