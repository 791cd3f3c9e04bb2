#include <vector>

#include "detect/positive_rows.h"

namespace mixpl::cpu {

void find_positive_rows(const Tensor& positive, int64_t, Tensor& rows) {
  const float* value = positive.data<float>();
  std::vector<int32_t> found;
  for (int64_t i = 0; i < positive.numel(); ++i)
    if (value[i] > 0) found.push_back(static_cast<int32_t>(i));
  rows = Tensor::from(found, {static_cast<int64_t>(found.size())});
}

}  // namespace mixpl::cpu
