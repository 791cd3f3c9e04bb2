// Filters as the matrix products read them.
#pragma once

#include <vector>

#include "core/tensor.h"

namespace mixpl::cuda {

/// `weight` as rows of `length` elements of `type`, each padded with zeros to whole chunks of 16
/// bytes, and `zero_rows` after them: the weight itself where nothing changes, else a copy that is
/// kept with it.
Tensor filter_rows(const Tensor& weight, DType type, int64_t length, int64_t zero_rows = 0);

/// Filters [K, R, S, C] for pixels in pairs: rows of [R, pairs, 2 C] elements, `lead` (0 or 1)
/// columns of zeros before those of a filter, zeros after them; padded and kept likewise.
Tensor paired_filter_rows(const Tensor& weight, DType type, int lead, int pairs);

/// Where a convolution puts maps whose pixels are no whole chunks: lanes that store whole chunks of
/// different rows would store their elements one by one.
class PaddedOutputs {
 public:
  explicit PaddedOutputs(const std::vector<Tensor>& ys);
  /// [N, P, Q, K rounded up].
  const std::vector<Tensor>& padded() const { return padded_; }
  /// Copies them to `ys`, in one launch.
  void unpad() const;

 private:
  std::vector<Tensor> ys_, padded_;
};

}  // namespace mixpl::cuda
