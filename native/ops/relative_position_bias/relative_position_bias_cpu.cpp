#include "core/parallel.h"
#include "ops/relative_position_bias/relative_position_bias.h"
#include "ops/relative_position_bias/relative_position_bias_math.h"

namespace mixpl::cpu {

void relative_position_bias_forward(const Tensor& table, int64_t size, Tensor& bias) {
  const int64_t heads = table.size(1), tokens = size * size;
  const auto side = static_cast<int32_t>(size);
  const float* from = table.data<float>();
  float* to = bias.data<float>();
  parallel_for(heads * tokens, int64_t{16}, [=](int64_t i) {
    const auto query = static_cast<int32_t>(i % tokens);
    const float* column = from + i / tokens;
    float* row = to + i * tokens;
    for (int32_t y = 0; y < side; ++y) {
      const int64_t first = bias_row(side, query / side, query % side, y, 0);
      for (int32_t x = 0; x < side; ++x) *row++ = column[(first - x) * heads];
    }
  });
}

void relative_position_bias_backward(const Tensor& dbias, int64_t size, Tensor& dtable) {
  const int64_t heads = dtable.size(1), tokens = size * size;
  const float* from = dbias.data<float>();
  float* to = dtable.data<float>();
  parallel_for(dtable.numel(), int64_t{64}, [=](int64_t i) {
    to[i] = bias_row_sum(from + i % heads * tokens * tokens, static_cast<int32_t>(size),
                         static_cast<int32_t>(i / heads));
  });
}

}  // namespace mixpl::cpu
