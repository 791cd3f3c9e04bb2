#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "ops/layer_weighted_conv/layer_weighted_conv.h"

namespace mixpl::cpu {
namespace {

// The numbers of one image, as f32.
std::vector<float> row_of(const Tensor& attention, int64_t image, int64_t layers) {
  std::vector<float> row(layers);
  dispatch_floating(attention.dtype(), [&](auto tag) {
    const auto* from = attention.data<decltype(tag)>() + image * layers;
    for (int64_t s = 0; s < layers; ++s) row[s] = float(from[s]);
  });
  return row;
}

// The last axis counts the layers.
int64_t layers_of(const Tensor& attention) { return attention.size(-1); }

}  // namespace

void weigh_layers(const Tensor& weight, const Tensor& attention, int64_t image, Tensor& scaled) {
  const int64_t layers = layers_of(attention), channels = weight.size(3);
  const int64_t per = channels / layers;
  const std::vector<float> a = row_of(attention, image, layers);
  const float* in = weight.data<float>();
  float* out = scaled.data<float>();
  parallel_for(weight.size(0) * layers, std::max<int64_t>(1, 16384 / per), [&](int64_t i) {
    const float factor = a[i % layers];
    for (int64_t c = i * per; c < (i + 1) * per; ++c) out[c] = factor * in[c];
  });
}

void weigh_layers_backward(const Tensor& dscaled, const Tensor& weight, const Tensor& attention,
                           int64_t image, Tensor& dweight, Tensor& dattention) {
  const int64_t layers = layers_of(attention), channels = weight.size(3);
  const int64_t per = channels / layers, filters = weight.size(0);
  const std::vector<float> a = row_of(attention, image, layers);
  const float *d = dscaled.data<float>(), *w = weight.data<float>();
  float* dw = dweight.defined() ? dweight.data<float>() : nullptr;
  parallel_for(layers, int64_t{1}, [&](int64_t s) {
    double sum = 0;
    for (int64_t k = 0; k < filters; ++k) {
      const int64_t at = k * channels + s * per;
      float row = 0;
      for (int64_t c = at; c < at + per; ++c) {
        row += d[c] * w[c];
        if (dw) dw[c] += a[s] * d[c];
      }
      sum += row;
    }
    if (dattention.defined())
      dispatch_floating(dattention.dtype(), [&](auto tag) {
        using T = decltype(tag);
        dattention.data<T>()[image * layers + s] = T(static_cast<float>(sum));
      });
  });
}

}  // namespace mixpl::cpu
