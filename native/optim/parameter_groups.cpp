#include "optim/parameter_groups.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace mixpl {
namespace {

// Both go to the loops as f32, where neither may become infinite, nor a rate that is wanted none.
double not_negative(const std::string& name, double value) {
  if (!(value >= 0 && std::isfinite(static_cast<float>(value))))
    throw ConfigError(str(name, " must be a number >= 0, got ", value));
  return value;
}
double positive(const std::string& name, double value) {
  const auto single = static_cast<float>(value);
  if (!(single > 0 && std::isfinite(single)))
    throw ConfigError(str(name, " must be a number > 0, got ", value));
  return value;
}

bool contains(const std::string& path, const std::string& part) {
  return path.find(part) != std::string::npos;
}

}  // namespace

ParameterGroups::ParameterGroups(const Options& options)
    : weight_decay_(options.number("weightDecay", 1e-4)),
      norm_decay_(options.number("normDecay", weight_decay_)),
      bias_decay_(options.number("biasDecay", weight_decay_)),
      backbone_lr_factor_(options.number("backboneLrFactor", 1)) {
  not_negative("optimizer.weightDecay", weight_decay_);
  not_negative("optimizer.normDecay", norm_decay_);
  not_negative("optimizer.biasDecay", bias_decay_);
  not_negative("optimizer.backboneLrFactor", backbone_lr_factor_);
  for (const Options& entry : options.objects("groups")) {
    Group group{entry.text("match", ""), groups_.size(), entry.boolean("optional", false), {}, {}};
    const std::string name = str("optimizer.groups.", group.index);
    if (group.match.empty())
      throw ConfigError(str(name, ".match must be a part of a parameter's path, got nothing"));
    for (const Group& other : groups_)
      if (other.match == group.match)
        throw ConfigError(str(name, ".match must differ from that of the other groups, got '",
                              group.match, "' as in optimizer.groups.", other.index));
    if (entry.has("lrFactor"))
      group.lr_factor = positive(name + ".lrFactor", entry.number("lrFactor", 1));
    if (entry.has("weightDecayFactor"))
      group.weight_decay_factor =
          not_negative(name + ".weightDecayFactor", entry.number("weightDecayFactor", 1));
    entry.finish();
    groups_.push_back(std::move(group));
  }
  std::sort(groups_.begin(), groups_.end(), [](const Group& a, const Group& b) {
    if (a.match.size() != b.match.size()) return a.match.size() > b.match.size();
    return a.match < b.match;
  });
}

const ParameterGroups::Group* ParameterGroups::group_of(const std::string& path) const {
  for (const Group& group : groups_)
    if (contains(path, group.match)) return &group;
  return nullptr;
}

OptimizerTarget ParameterGroups::target(const std::string& path, const Tensor& value,
                                        bool norm) const {
  double lr_factor = path.rfind("backbone.", 0) == 0 ? backbone_lr_factor_ : 1;
  double decay = norm ? norm_decay_ : path.ends_with("bias") ? bias_decay_ : weight_decay_;
  if (const Group* group = group_of(path)) {
    lr_factor = group->lr_factor.value_or(lr_factor);
    if (group->weight_decay_factor) decay = weight_decay_ * *group->weight_decay_factor;
  }
  return {path, value, static_cast<float>(lr_factor), static_cast<float>(decay)};
}

void ParameterGroups::check_matches(const std::vector<std::string>& paths) const {
  const Group* unused = nullptr;
  for (const Group& group : groups_) {
    const bool used = std::any_of(paths.begin(), paths.end(), [&](const std::string& path) {
      return contains(path, group.match);
    });
    if (!used && !group.optional && (!unused || group.index < unused->index)) unused = &group;
  }
  if (!unused) return;
  const std::string example = paths.empty() ? "none" : "as in '" + paths.back() + "'";
  throw ConfigError(str("optimizer.groups.", unused->index,
                        ".match must be a part of a parameter's path (", example, "), got '",
                        unused->match, "'"));
}

}  // namespace mixpl
