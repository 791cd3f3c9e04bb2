#include "core/cuda/kernel.h"
#include "ops/layer_weighted_conv/layer_weighted_conv.h"

namespace mixpl::cuda {
namespace {

constexpr int kThreads = 512;

// Filters of `channels`, in layers of `per` channels with one number of the image each.
template <typename T>
struct Layers {
  const float* weight;
  const T* numbers;
  int64_t channels, per;

  MIXPL_DEVICE float number(int64_t i) const { return float(numbers[i % channels / per]); }
};
template <typename T>
Layers<T> layers_of(const Tensor& weight, const Tensor& attention, int64_t image) {
  const int64_t layers = attention.size(-1), channels = weight.size(3);
  return {weight.data<float>(), attention.data<T>() + image * layers, channels, channels / layers};
}

template <typename T>
struct Weigh {
  Layers<T> v;
  float* scaled;
  MIXPL_DEVICE void operator()(int64_t i) const { scaled[i] = v.number(i) * v.weight[i]; }
};

template <typename T>
struct AddWeighed {
  Layers<T> v;
  const float* dscaled;
  float* dweight;
  MIXPL_DEVICE void operator()(int64_t i) const { dweight[i] += v.number(i) * dscaled[i]; }
};

// One block a layer.
template <typename T>
MIXPL_KERNEL __launch_bounds__(kThreads)
    number_gradient_kernel(Layers<T> v, const float* dscaled, int64_t filters, T* dnumbers) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < filters * v.per; i += kThreads) {
    const int64_t at = i / v.per * v.channels + blockIdx.x * v.per + i % v.per;
    sum += double(dscaled[at]) * v.weight[at];
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) dnumbers[blockIdx.x] = T(static_cast<float>(sum));
}

}  // namespace

void weigh_layers(const Tensor& weight, const Tensor& attention, int64_t image, Tensor& scaled) {
  dispatch_floating(attention.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_each(weight.numel(),
             Weigh<T>{layers_of<T>(weight, attention, image), scaled.data<float>()});
  });
}

void weigh_layers_backward(const Tensor& dscaled, const Tensor& weight, const Tensor& attention,
                           int64_t image, Tensor& dweight, Tensor& dattention) {
  const int64_t layers = attention.size(-1);
  dispatch_floating(attention.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const Layers<T> v = layers_of<T>(weight, attention, image);
    if (dweight.defined())
      for_each(weight.numel(), AddWeighed<T>{v, dscaled.data<float>(), dweight.data<float>()});
    if (dattention.defined())
      launch(number_gradient_kernel<T>, layers, kThreads, 0, v, dscaled.data<float>(),
             weight.size(0), dattention.data<T>() + image * layers);
  });
}

}  // namespace mixpl::cuda
