#include "models/backbones/resnet.h"

#include "autograd/recompute.h"
#include "ops/max_pool2d/max_pool2d.h"

namespace mixpl {

ResNetOptions ResNetOptions::read(const Options& options) {
  ResNetOptions out;
  options.text("type", "resnet");
  out.depth = static_cast<int>(options.integer("depth", out.depth));
  const std::string style = options.text("style", "pytorch");
  if (style != "pytorch" && style != "caffe")
    throw ConfigError(str("backbone.style must be 'pytorch' or 'caffe', got '", style, "'"));
  out.caffe_style = style == "caffe";
  out.frozen_stages = static_cast<int>(options.integer("frozenStages", out.frozen_stages));
  out.norm = parse_norm(options.text("norm", "frozen-bn"));
  out.base_width = options.integer("baseWidth", out.base_width);
  out.norm_eps = static_cast<float>(options.number("normEps", out.norm_eps));
  out.recompute = options.boolean("recompute", out.recompute);
  options.finish();
  if (!(out.norm_eps >= 0 && out.norm_eps <= 1))
    throw ConfigError(str("backbone.normEps must be in [0, 1], got ", out.norm_eps));
  if (out.frozen_stages < -1 || out.frozen_stages > 4)
    throw ConfigError(str("backbone.frozenStages must be in [-1, 4], got ", out.frozen_stages));
  if (out.base_width < 4 || out.base_width > 4096 || out.base_width % 4)
    throw ConfigError(
        str("backbone.baseWidth must be a multiple of 4 in [4, 4096], got ", out.base_width));
  return out;
}

ResNet::ResNet(const Scope& scope, const ResNetOptions& options) : recompute_(options.recompute) {
  std::vector<int> blocks;
  switch (options.depth) {
    case 18:
      blocks = {2, 2, 2, 2};
      break;
    case 34:
      blocks = {3, 4, 6, 3};
      break;
    case 50:
      blocks = {3, 4, 6, 3};
      break;
    case 101:
      blocks = {3, 4, 23, 3};
      break;
    default:
      throw ConfigError(str("backbone.depth must be 18, 34, 50 or 101, got ", options.depth));
  }
  const bool bottleneck = options.depth >= 50;
  const std::string norm = norm_name(options.norm);

  const auto spec = [&](int64_t in, int64_t out, int kernel, int stride, bool relu) {
    ConvSpec s;
    s.in = in;
    s.out = out;
    s.kernel = kernel;
    s.stride = stride;
    s.norm = options.norm;
    s.norm_eps = options.norm_eps;
    s.freeze_statistics = options.freeze_statistics;
    s.relu = relu;
    s.init = init::kaiming_normal_fan_out();
    return s;
  };

  stem_ = ConvNorm(scope.frozen(options.frozen_stages >= 0), "conv1", norm + "1",
                   spec(3, options.base_width, 7, 2, true));
  int64_t in = options.base_width;
  for (int stage = 0; stage < 4; ++stage) {
    const Scope at_stage =
        scope.child(str("layer", stage + 1)).frozen(options.frozen_stages > stage);
    const int64_t width = options.base_width << stage;
    const int64_t out = bottleneck ? 4 * width : width;
    std::vector<Block> layer;
    for (int i = 0; i < blocks[stage]; ++i) {
      const Scope at = at_stage.child(str(i));
      const int stride = i == 0 && stage > 0 ? 2 : 1;
      Block block;
      block.bottleneck = bottleneck;
      if (bottleneck) {
        const int s1 = options.caffe_style ? stride : 1, s2 = options.caffe_style ? 1 : stride;
        block.conv1 = ConvNorm(at, "conv1", norm + "1", spec(in, width, 1, s1, true));
        block.conv2 = ConvNorm(at, "conv2", norm + "2", spec(width, width, 3, s2, true));
        block.conv3 = ConvNorm(at, "conv3", norm + "3", spec(width, out, 1, 1, true));
      } else {
        block.conv1 = ConvNorm(at, "conv1", norm + "1", spec(in, width, 3, stride, true));
        block.conv2 = ConvNorm(at, "conv2", norm + "2", spec(width, width, 3, 1, true));
      }
      block.has_downsample = i == 0 && (stride != 1 || in != out);
      if (block.has_downsample)
        block.downsample =
            ConvNorm(at.child("downsample"), "0", "1", spec(in, out, 1, stride, false));
      layer.push_back(std::move(block));
      in = out;
    }
    stages_.push_back(std::move(layer));
    channels_.push_back(out);
  }
}

std::vector<Tensor> ResNet::Block::operator()(const std::vector<Tensor>& xs) const {
  const std::vector<Tensor> shortcuts = has_downsample ? downsample(xs) : xs;
  if (!bottleneck) return conv2(conv1(xs), shortcuts);
  return conv3(conv2(conv1(xs)), shortcuts);
}

std::vector<FeatureMaps> ResNet::operator()(const std::vector<Tensor>& batches) const {
  const auto run = [this](const std::vector<Tensor>& xs, const Part& part) {
    return recompute_ ? recompute(xs, part) : part(xs);
  };
  std::vector<Tensor> xs = run(batches, [this](const std::vector<Tensor>& in) {
    std::vector<Tensor> ys = stem_(in);
    for (Tensor& y : ys) y = max_pool2d(y, {3, 2, 1});
    return ys;
  });
  std::vector<FeatureMaps> pyramids(batches.size());
  for (const std::vector<Block>& stage : stages_) {
    xs = run(xs, [blocks = &stage](std::vector<Tensor> ys) {
      for (const Block& block : *blocks) ys = block(ys);
      return ys;
    });
    for (size_t i = 0; i < xs.size(); ++i) pyramids[i].push_back(xs[i]);
  }
  return pyramids;
}

}  // namespace mixpl
