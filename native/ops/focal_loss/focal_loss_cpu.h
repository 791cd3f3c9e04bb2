#pragma once

#include "ops/focal_loss/focal_loss.h"

namespace mixpl::cpu {

/// A label outside [-1, classes], or 0 when there is none.
int64_t focal_loss_bad_label(const Tensor& labels, int64_t classes);
void focal_loss_forward(const Tensor& logits, const Tensor& labels, int64_t classes,
                        const FocalLossOptions& options, Tensor& loss);
void focal_loss_backward(const Tensor& dloss, const Tensor& logits, const Tensor& labels,
                         int64_t classes, const FocalLossOptions& options, Tensor& dlogits);

}  // namespace mixpl::cpu
