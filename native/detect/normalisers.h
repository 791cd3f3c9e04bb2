// Counts and sums that losses are divided by. They stay where the targets are: on a device nobody
// waits for them.
#pragma once

#include <vector>

#include "core/tensor.h"
#include "detect/pyramid.h"

namespace mixpl {

/// f32 [N], whole numbers: how many anchors of each image have a box.
/// @param assigned i32 [N, A], >= 0 where there is a box
Tensor count_positives(const Tensor& assigned);

/// f32 [1]: the sum over the images of max(count, 1), mmdetection's normaliser.
/// @param counts f32 [N]
Tensor average_factor(const Tensor& counts);

/// f32 [1]: the sum of all numbers in f64, at least `least`; the same bits on every run.
/// @param tensors f32, at most kMostLevels, on one device
Tensor sum_of(const std::vector<Tensor>& tensors, double least);

/// What loops and kernels sum.
struct SumView {
  Pyramid sizes;
  PerLevel<const float> values;
  MIXPL_HD float operator()(int64_t i) const {
    const int level = sizes.level_of(i);
    return values[level][i - sizes.first[level]];
  }
};

namespace cpu {
void count_positives(const Tensor& assigned, Tensor& counts);
void average_factor(const Tensor& counts, Tensor& factor);
void sum_of(const std::vector<Tensor>& tensors, double least, Tensor& sum);
}  // namespace cpu
namespace cuda {
void count_positives(const Tensor& assigned, Tensor& counts);
void average_factor(const Tensor& counts, Tensor& factor);
void sum_of(const std::vector<Tensor>& tensors, double least, Tensor& sum);
}  // namespace cuda

}  // namespace mixpl
