// BatchNorm with fixed statistics, folded into the convolution before it.
#pragma once

#include <utility>

#include "core/tensor.h"

namespace mixpl {

/// {weight * scale, beta - mean * scale} with scale = gamma / sqrt(variance + eps), per filter.
///
/// @param weight f32 [K, ...]; gamma, beta, mean, variance f32 [K]
/// @param type   the folded weight's, f32 or bf16
/// @return       folded weight [K, ...] and bias f32 [K]
/// @grad         weight, gamma, beta
/// @throws       ShapeError, DTypeError, RangeError
std::pair<Tensor, Tensor> fold_batch_norm(const Tensor& weight, const Tensor& gamma,
                                          const Tensor& beta, const Tensor& mean,
                                          const Tensor& variance, float eps,
                                          DType type = DType::f32);
/// Records once more that `folded` came of these, on the current tape: nothing is computed.
void record_fold(const std::pair<Tensor, Tensor>& folded, const Tensor& weight, const Tensor& gamma,
                 const Tensor& beta, const Tensor& mean, const Tensor& variance, float eps);

namespace cpu {
void fold_batch_norm_forward(const Tensor& weight, const Tensor& gamma, const Tensor& beta,
                             const Tensor& mean, const Tensor& variance, float eps, Tensor& folded,
                             Tensor& bias);
/// dfolded and dbias may be undefined (zero); the results may be undefined (not wanted). dweight,
/// which may be dfolded, gets its gradient, or that added to it.
void fold_batch_norm_backward(const Tensor& dfolded, const Tensor& dbias, const Tensor& weight,
                              const Tensor& gamma, const Tensor& mean, const Tensor& variance,
                              float eps, bool add, Tensor& dweight, Tensor& dgamma);
}  // namespace cpu
namespace cuda {
/// In a context that computes in bf16, the filters as convolutions read them as well. f32 only.
void fold_batch_norm_forward(const Tensor& weight, const Tensor& gamma, const Tensor& beta,
                             const Tensor& mean, const Tensor& variance, float eps, Tensor& folded,
                             Tensor& bias);
void fold_batch_norm_backward(const Tensor& dfolded, const Tensor& dbias, const Tensor& weight,
                              const Tensor& gamma, const Tensor& mean, const Tensor& variance,
                              float eps, bool add, Tensor& dweight, Tensor& dgamma);
}  // namespace cuda

}  // namespace mixpl
