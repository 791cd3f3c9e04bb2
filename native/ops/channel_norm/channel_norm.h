// What group, batch and instance normalisation share: x is seen as [images, pixels, channels] and
// statistics belong to (image, group of neighbouring channels). Batch normalisation is one image
// with as many groups as channels. Statistics, sums and parameters are f32 or wider for any dtype
// of x.
#pragma once

#include "core/tensor.h"

namespace mixpl {

struct NormView {
  int64_t images, pixels, channels, groups;
  int64_t group_size() const { return channels / groups; }
  int64_t stats() const { return images * groups; }
};

/// The normalisation of one forward pass: y = (x - mean) * rstd * gamma + beta (+ residual), then
/// ReLU when asked.
struct NormForward {
  NormView view;
  Tensor x, gamma, beta;  // f32|bf16 [images, pixels, channels]; f32 [C]
  Tensor mean, rstd;      // f32 [images * groups]
  Tensor residual;        // as x, or undefined
  bool relu = false;
  // Of batch_norm on a device, or undefined: see `owners` there; f32 [1], pixels of rows that
  // count.
  Tensor owners, count;
};

struct NormBackward {
  NormForward forward;
  Tensor y;                  // the output; needed when relu and residual are both there
  Tensor dout;               // overwritten when it is dx or dresidual
  bool fixed_stats = false;  // mean and rstd are constants (evaluation) and not functions of x
  Tensor dx, dresidual;      // results, or undefined; dresidual = dout behind the ReLU
  Tensor dgamma, dbeta;      // f32 [C], or undefined
};

/// Puts the way back of y = forward on the tape: gradients of x, gamma, beta and residual.
void record_norm(const NormForward& forward, const Tensor& y, bool fixed_stats);

namespace cpu {
/// Mean and biased variance per (image, group), f32 [images * groups]. Chunks of pixels are summed
/// around the mean of a few of them and merged in f64, in order: the same bits for any number of
/// threads, and little cancels where the mean is large.
void norm_moments(const NormForward& norm, Tensor& mean, Tensor& variance);
/// In place: 1 / sqrt(variance + eps).
void norm_rstd(float eps, Tensor& variance);
void norm_forward(const NormForward& norm, Tensor& y);
/// The three of them for statistics per image: fills norm's mean and rstd, then y, image after
/// image, so that the second pass over one finds it in a cache.
void norm_by_image(const NormForward& norm, float eps, Tensor& mean, Tensor& rstd, Tensor& y);
void norm_backward(NormBackward& norm);
}  // namespace cpu

namespace cuda {
/// Chunks of pixels are summed around the image's first value in f32 and merged in f64, in order.
/// Fills norm.count, and x where rows do not count.
void norm_moments(const NormForward& norm, Tensor& mean, Tensor& variance);
void norm_rstd(float eps, Tensor& variance);
void norm_forward(const NormForward& norm, Tensor& y);
void norm_by_image(const NormForward& norm, float eps, Tensor& mean, Tensor& rstd, Tensor& y);
void norm_backward(NormBackward& norm);
}  // namespace cuda

}  // namespace mixpl
