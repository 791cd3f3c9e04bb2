#include "detect/positive_rows.h"

#include "core/launch.h"

namespace mixpl {

Tensor positive_rows(const Tensor& positive, int64_t most) {
  if (positive.numel() > INT32_MAX)
    throw ShapeError(str("positiveRows: must be below 2^31 numbers, got ", positive.shape()));
  Tensor rows;
  MIXPL_DISPATCH(positive.device(), find_positive_rows, positive, most, rows);
  return rows;
}

}  // namespace mixpl
