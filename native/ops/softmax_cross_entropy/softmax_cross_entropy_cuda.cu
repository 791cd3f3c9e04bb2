#include "core/cuda/kernel.h"
#include "ops/softmax_cross_entropy/softmax_cross_entropy.h"
#include "ops/softmax_cross_entropy/softmax_cross_entropy_math.h"

namespace mixpl::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kRows = kThreads / 32;  // a warp takes a row

template <typename T>
MIXPL_DEVICE RowSoftmax softmax_of(const T* x, int64_t classes) {
  float most = -INFINITY;
  for (int64_t c = lane(); c < classes; c += 32) most = fmaxf(most, float(x[c]));
  most = warp_max(most);
  double sum = 0;
  for (int64_t c = lane(); c < classes; c += 32) sum += RowSoftmax::share(float(x[c]), most);
  return {most, warp_sum(sum)};
}

template <typename T>
MIXPL_KERNEL loss_kernel(const T* __restrict__ logits, const int32_t* __restrict__ labels,
                         int64_t rows, int64_t classes, float* __restrict__ losses) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + warp();
  if (row >= rows) return;
  const int32_t label = labels[row];
  const T* x = logits + row * classes;
  float loss = 0;
  if (label >= 0) {
    const RowSoftmax softmax = softmax_of(x, classes);
    // A label that is no class, the caller's mistake, must not be read.
    loss = label < classes ? static_cast<float>(softmax.loss(float(x[label]))) : NAN;
  }
  if (lane() == 0) losses[row] = loss;
}

template <typename T>
MIXPL_KERNEL gradient_kernel(const float* __restrict__ dloss, const T* __restrict__ logits,
                             const int32_t* __restrict__ labels, int64_t rows, int64_t classes,
                             T* __restrict__ dlogits) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + warp();
  if (row >= rows) return;
  const int32_t label = labels[row];
  const T* x = logits + row * classes;
  T* d = dlogits + row * classes;
  if (label < 0) {
    for (int64_t c = lane(); c < classes; c += 32) d[c] = T(0.0f);
    return;
  }
  const RowSoftmax softmax = softmax_of(x, classes);
  const float scale = *dloss;
  for (int64_t c = lane(); c < classes; c += 32)
    d[c] = T(scale * softmax.slope(float(x[c]), c == label));
}

struct RowLoss {
  const float* losses;
  MIXPL_DEVICE float operator()(int64_t row) const { return losses[row]; }
};

dim3 blocks_of(int64_t rows) { return dim3(static_cast<unsigned>((rows + kRows - 1) / kRows)); }

}  // namespace

// Of the named op only, which may wait.
int64_t softmax_cross_entropy_bad_label(const Tensor& labels, int64_t classes) {
  return cpu::softmax_cross_entropy_bad_label(labels.to(Device::cpu()), classes);
}

void softmax_cross_entropy_forward(const Tensor& logits, const Tensor& labels, Tensor& loss) {
  const int64_t rows = labels.numel();
  Tensor losses = Tensor::empty({rows}, DType::f32, logits.device());
  dispatch_floating(logits.dtype(), [&](auto tag) {
    using T = decltype(tag);
    launch(loss_kernel<T>, blocks_of(rows), dim3(kThreads), 0, logits.data<T>(),
           labels.data<int32_t>(), rows, logits.size(-1), losses.data<float>());
  });
  reduce_sum(rows, RowLoss{losses.data<float>()}, loss.data<float>());
}

void softmax_cross_entropy_backward(const Tensor& dloss, const Tensor& logits, const Tensor& labels,
                                    Tensor& dlogits) {
  const int64_t rows = labels.numel();
  dispatch_floating(logits.dtype(), [&](auto tag) {
    using T = decltype(tag);
    launch(gradient_kernel<T>, blocks_of(rows), dim3(kThreads), 0, dloss.data<float>(),
           logits.data<T>(), labels.data<int32_t>(), rows, logits.size(-1), dlogits.data<T>());
  });
}

}  // namespace mixpl::cuda
