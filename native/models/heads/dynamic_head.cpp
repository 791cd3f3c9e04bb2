#include "models/heads/dynamic_head.h"

#include <cmath>

#include "ops/batched_matmul/batched_matmul.h"
#include "ops/relu/relu.h"
#include "ops/reshape/reshape.h"
#include "ops/weight_rows/weight_rows.h"

namespace mixpl {
namespace {

Init torch_bias(int64_t in) {  // of torch.nn.Linear, which mmdetection leaves as it is here
  return [in](Tensor& t, const Philox& random) {
    float* p = t.data<float>();
    const double bound = 1 / std::sqrt(static_cast<double>(in));
    for (int64_t i = 0; i < t.numel(); ++i)
      p[i] = static_cast<float>(bound * (2 * random.uniform(i) - 1));
  };
}

}  // namespace

DynamicHeadOptions DynamicHeadOptions::read(const Options& options,
                                            const DynamicHeadOptions& defaults) {
  DynamicHeadOptions out = defaults;
  const auto read = [&](const char* name, int64_t fallback, int64_t low, int64_t high) {
    const int64_t value = options.integer(name, fallback);
    if (value < low || value > high)
      throw ConfigError(str("head.", name, " must be in [", low, ", ", high, "], got ", value));
    return value;
  };
  out.heads = read("heads", out.heads, 1, 64);
  out.dynamic_channels = read("dynamicChannels", out.dynamic_channels, 1, 1 << 12);
  out.ffn_channels = read("ffnChannels", out.ffn_channels, 1, 1 << 16);
  out.class_layers = static_cast<int>(read("classLayers", out.class_layers, 0, 16));
  out.box_layers = static_cast<int>(read("boxLayers", out.box_layers, 0, 16));
  if (out.channels % out.heads)
    throw ConfigError(
        str("head.heads must divide neck.channels (", out.channels, "), got ", out.heads));
  return out;
}

DynamicConv::DynamicConv(const Scope& scope, const DynamicHeadOptions& o)
    : channels_(o.channels), inner_(o.dynamic_channels) {
  const Scope filters = scope.child("dynamic_layer");
  const int64_t numbers = 2 * o.channels * o.dynamic_channels;
  weight_ = filters.weight("weight", {numbers, o.channels}, init::xavier_uniform());
  bias_ = filters.weight("bias", {numbers}, torch_bias(o.channels));
  norm_in_ = LayerNorm(scope, "norm_in", inner_);
  norm_out_ = LayerNorm(scope, "norm_out", channels_);
  const int64_t pooled = int64_t{o.size} * o.size * channels_;
  last_ =
      Linear(scope, "fc_layer", pooled, channels_, init::xavier_uniform(), {}, torch_bias(pooled));
  last_norm_ = LayerNorm(scope, "fc_norm", channels_);
}

Tensor DynamicConv::operator()(const Tensor& queries, const Tensor& features) const {
  const int64_t regions = features.size(0), places = features.size(1) * features.size(2);
  // Each half of the parameters makes one filter: none of the two is copied out of both.
  const auto filter = [&](int64_t half, int64_t in, int64_t out) {
    const int64_t count = in * out, first = half * count;
    const Tensor weight = weight_rows(weight_, first, first + count);
    const Tensor bias = weight_rows(bias_, first, first + count);
    return reshape(linear(queries, weight, bias), {regions, in, out});
  };
  Tensor x = reshape(features, {regions, places, channels_});
  x = relu(norm_in_(batched_matmul(x, filter(0, channels_, inner_))));
  x = relu(norm_out_(batched_matmul(x, filter(1, inner_, channels_))));
  return relu(last_norm_(last_(reshape(x, {regions, places * channels_}))));
}

DynamicHead::NormedLayer::NormedLayer(const Scope& scope, int first, int64_t channels)
    : weight(
          scope.child(str(first)).weight("weight", {channels, channels}, init::xavier_uniform())),
      norm(scope, str(first + 1), channels) {}

Tensor DynamicHead::NormedLayer::operator()(const Tensor& x) const {
  return relu(norm(linear(x, weight, {})));
}

DynamicHead::DynamicHead(const Scope& scope, const DynamicHeadOptions& o)
    : attention_(scope, "attention", o.channels, o.heads, init::xavier_uniform()),
      conv_(scope.child("instance_interactive_conv"), o),
      ffn_(scope, "ffn", o.channels, o.ffn_channels),
      attention_norm_(scope, "attention_norm", o.channels),
      conv_norm_(scope, "instance_interactive_conv_norm", o.channels),
      ffn_norm_(scope, "ffn_norm", o.channels) {
  // A third place is the ReLU's.
  for (int i = 0; i < o.class_layers; ++i)
    class_layers_.emplace_back(scope.child("cls_fcs"), 3 * i, o.channels);
  for (int i = 0; i < o.box_layers; ++i)
    box_layers_.emplace_back(scope.child("reg_fcs"), 3 * i, o.channels);
  const float prior = -std::log(99.0f);  // a probability of 0.01
  classes_ = Linear(scope, "fc_cls", o.channels, o.classes, init::xavier_uniform(), {},
                    init::constant(prior));
  boxes_ = Linear(scope, "fc_reg", o.channels, 4, init::xavier_uniform());
}

DynamicHeadOutputs DynamicHead::operator()(const Tensor& given, const Tensor& features) const {
  const Shape shape = given.shape(), rows{shape[0] * shape[1], shape[2]};
  Tensor x = attention_norm_(attention_(given, given, given), given);
  x = reshape(x, rows);
  x = conv_norm_(conv_(x, features), x);
  x = reshape(ffn_norm_(ffn_(x), x), shape);
  Tensor of_classes = x, of_boxes = x;
  for (const NormedLayer& layer : class_layers_) of_classes = layer(of_classes);
  for (const NormedLayer& layer : box_layers_) of_boxes = layer(of_boxes);
  return {classes_(of_classes), boxes_(of_boxes), x};
}

}  // namespace mixpl
