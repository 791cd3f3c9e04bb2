#include "models/backbones/swin.h"

#include <numeric>

#include "autograd/recompute.h"
#include "core/error.h"
#include "nn/multihead_attention.h"
#include "ops/add/add.h"
#include "ops/attention/attention.h"
#include "ops/patches/patches.h"
#include "ops/relative_position_bias/relative_position_bias.h"
#include "ops/reshape/reshape.h"

namespace mixpl {
namespace {

constexpr int64_t kPatch = 4;
constexpr int64_t kMlpRatio = 4;

void read_size(const std::string& size, SwinOptions& out) {
  if (size == "tiny") return;
  out.depths = {2, 2, 18, 2};
  if (size == "small") return;
  out.embed = 128, out.heads = {4, 8, 16, 32};
  if (size == "base") return;
  out.embed = 192, out.heads = {6, 12, 24, 48};
  if (size != "large")
    throw ConfigError(
        str("backbone.size must be 'tiny', 'small', 'base' or 'large', got '", size, "'"));
}

std::array<int64_t, 4> read_four(const Options& options, const char* name,
                                 const std::array<int64_t, 4>& fallback, double most) {
  const std::vector<double> given =
      options.numbers(name, std::vector<double>(fallback.begin(), fallback.end()));
  std::array<int64_t, 4> out{};
  bool fits = given.size() == out.size();
  for (size_t i = 0; fits && i < out.size(); ++i) {
    fits = given[i] >= 1 && given[i] <= most;
    if (fits) out[i] = static_cast<int64_t>(given[i]);
    fits = fits && static_cast<double>(out[i]) == given[i];
  }
  if (!fits)
    throw ConfigError(str("backbone.", name, " must be four whole numbers in [1, ", most,
                          "], one for each stage, got ", options.raw(name)));
  return out;
}

}  // namespace

SwinOptions SwinOptions::read(const Options& options) {
  SwinOptions out;
  options.text("type", "swin");
  read_size(options.text("size", "tiny"), out);
  out.embed = options.integer("embed", out.embed);
  out.depths = read_four(options, "depths", out.depths, 256);
  out.heads = read_four(options, "heads", out.heads, 1024);
  out.window = options.integer("window", out.window);
  const double drop_path = options.number("dropPath", out.drop_path);
  const int64_t frozen_stages = options.integer("frozenStages", out.frozen_stages);
  out.recompute = options.boolean("recompute", out.recompute);
  options.finish();
  if (out.embed < 1 || out.embed > 4096)
    throw ConfigError(str("backbone.embed must be in [1, 4096], got ", out.embed));
  for (int stage = 0; stage < 4; ++stage)
    if ((out.embed << stage) % out.heads[stage])
      throw ConfigError(str("backbone.heads must divide the channels of their stages, got ",
                            out.heads[stage], " heads of ", out.embed << stage, " channels"));
  if (out.window < 2 || out.window > 32)
    throw ConfigError(str("backbone.window must be in [2, 32], got ", out.window));
  if (!(drop_path >= 0 && drop_path < 1))
    throw ConfigError(str("backbone.dropPath must be in [0, 1), got ", drop_path));
  if (frozen_stages < -1 || frozen_stages > 4)
    throw ConfigError(str("backbone.frozenStages must be in [-1, 4], got ", frozen_stages));
  out.drop_path = static_cast<float>(drop_path);
  out.frozen_stages = static_cast<int>(frozen_stages);
  return out;
}

// Normal with this deviation: the reference cuts it at ±2, a hundred deviations away.
static Init swin_weights() { return init::normal(0.02f); }

Swin::Swin(const Scope& scope, const SwinOptions& options, int first_level)
    : first_level_(first_level), recompute_(options.recompute) {
  const Scope embed = scope.child("patch_embed").frozen(options.frozen_stages >= 0),
              projection = embed.child("projection");
  embed_weight_ =
      projection.weight("weight", {options.embed, kPatch, kPatch, 3}, init::uniform_fan_in());
  embed_bias_ = projection.weight("bias", {options.embed}, init::constant(0));
  embed_norm_ = LayerNorm(embed, "norm", options.embed);
  for (int s = 0; s < 4; ++s) {
    const bool frozen = options.frozen_stages > s;
    const Scope at = scope.child(str("stages.", s)).frozen(frozen);
    const int64_t channels = options.embed << s;
    Stage stage;
    for (int b = 0; b < options.depths[s]; ++b)
      stage.blocks.push_back(make_block(at.child(str("blocks.", b)), options, s, b));
    if (s < 3) {
      const Scope merging = at.child("downsample");
      stage.merging.norm = LayerNorm(merging, "norm", 4 * channels);
      stage.merging.reduction =
          merging.child("reduction").weight("weight", {2 * channels, 4 * channels}, swin_weights());
    }
    if (s + 2 >= first_level)
      stage.norm = LayerNorm(scope.frozen(frozen), str("norm", s), channels);
    stages_.push_back(std::move(stage));
    channels_.push_back(channels);
  }
}

Swin::Block Swin::make_block(const Scope& scope, const SwinOptions& options, int stage,
                             int block) const {
  const int64_t channels = options.embed << stage, heads = options.heads[stage];
  check_head_width(channels / heads);
  const int64_t distances = (2 * options.window - 1) * (2 * options.window - 1);
  const auto before =
      std::accumulate(options.depths.begin(), options.depths.begin() + stage, int64_t{block});
  const auto all = std::accumulate(options.depths.begin(), options.depths.end(), int64_t{0});
  const Scope attention = scope.child("attn.w_msa");
  Block out;
  out.norm1 = LayerNorm(scope, "norm1", channels);
  out.bias_table =
      attention.weight("relative_position_bias_table", {distances, heads}, swin_weights());
  out.qkv = Linear(attention, "qkv", channels, 3 * channels, swin_weights());
  out.projection = Linear(attention, "proj", channels, channels, swin_weights());
  out.norm2 = LayerNorm(scope, "norm2", channels);
  out.ffn =
      FeedForward(scope, "ffn", channels, kMlpRatio * channels, Activation::gelu, swin_weights());
  out.heads = heads;
  out.windows = {options.window, block % 2 ? options.window / 2 : 0};
  // What is frozen is used as in evaluation.
  const float share =
      scope.is_frozen() || all < 2
          ? 0
          : options.drop_path * static_cast<float>(before) / static_cast<float>(all - 1);
  out.drop_path = DropPath(share, static_cast<uint64_t>(2 * before));
  return out;
}

Tensor Swin::Block::attend(const Tensor& x, const Tensor& mask) const {
  AttentionOptions options;
  options.heads = heads;
  const Tensor cut = window_partition(norm1(x), windows);
  const Tensor seen = packed_attention(qkv(cut), {}, options,
                                       relative_position_bias(bias_table, windows.size), mask);
  return projection(seen);
}

Tensor Swin::Block::operator()(const Tensor& x, const Tensor& mask) const {
  const Tensor seen = attend(x, mask);
  // An image is kept or dropped as a whole.
  const Tensor kept =
      reshape(drop_path(reshape(seen, {x.size(0), x.size(0) ? seen.numel() / x.size(0) : 0})),
              seen.shape());
  const Tensor y = window_merge(kept, x.size(1), x.size(2), windows, x);
  return add(y, drop_path(ffn(norm2(y)), 1));
}

FeatureMaps Swin::operator()(const Tensor& input) const {
  const auto run = [this](const Tensor& x, const Part& part) {
    return (recompute_ ? recompute({x}, part) : part({x}))[0];
  };
  const Tensor cut = patches(input, kPatch);
  const int64_t embed = embed_weight_.size(0);
  Tensor x = embed_norm_(
      linear(cut, reshape(embed_weight_, {embed, embed_weight_.numel() / embed}), embed_bias_));
  FeatureMaps outputs;
  for (size_t s = 0; s < stages_.size(); ++s) {
    const Stage& stage = stages_[s];
    if (s > 0) {
      const Merging& merging = stages_[s - 1].merging;
      x = linear(merging.norm(patches(x, 2)), merging.reduction, {});
    }
    Tensor mask;  // the same for all blocks that shift
    for (const Block& block : stage.blocks) {
      const bool shifts = block.windows.shift > 0;
      if (shifts && !mask.defined())
        mask = window_mask(x.size(1), x.size(2), block.windows, x.device());
      x = run(x, [&block, mask = shifts ? mask : Tensor()](const std::vector<Tensor>& in) {
        return std::vector<Tensor>{block(in[0], mask)};
      });
    }
    const int level = static_cast<int>(s) + 2;
    outputs.push_back(level < first_level_ ? Tensor() : stage.norm(x));
  }
  return outputs;
}

}  // namespace mixpl
