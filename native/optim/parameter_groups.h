// Which share of the learning rate and how much weight decay each parameter of a model gets.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/options.h"
#include "optim/optimizer.h"

namespace mixpl {

/// What the optimizer's options say about single parameters, by their paths.
///
/// A group applies to the parameters whose path contains its `match`. Of several that do so one
/// alone counts: that with the longest `match`, among equally long ones the first in the order of
/// bytes. What it leaves out is as without groups: the rate of a backbone is multiplied with
/// backboneLrFactor, normalisation layers decay by normDecay and biases by biasDecay.
/// Source: custom_keys of mmdetection's paramwise_cfg. Deviation: there a key that applies switches
/// off the factors of norms and biases, whether it names its own or not.
class ParameterGroups {
 public:
  /// { weightDecay = 1e-4, normDecay and biasDecay = weightDecay, backboneLrFactor = 1,
  ///   groups = [{ match, lrFactor > 0, weightDecayFactor >= 0, optional = false }, …] };
  /// weightDecayFactor is of weightDecay, whatever a norm or a bias has. Other options are left to
  /// others.
  /// @throws ConfigError naming the option
  explicit ParameterGroups(const Options& options);

  /// `path` as in "backbone.layer1.0.conv1.weight"; a bias is what ends in "bias" and is no norm's.
  OptimizerTarget target(const std::string& path, const Tensor& value, bool norm) const;

  /// @throws ConfigError naming the first group that is not optional and whose `match` is in none
  ///   of the paths
  void check_matches(const std::vector<std::string>& paths) const;

 private:
  struct Group {
    std::string match;
    size_t index;  // in the options
    bool optional;
    std::optional<double> lr_factor, weight_decay_factor;
  };
  const Group* group_of(const std::string& path) const;

  double weight_decay_, norm_decay_, bias_decay_, backbone_lr_factor_;
  std::vector<Group> groups_;  // in the order in which they are asked
};

}  // namespace mixpl
