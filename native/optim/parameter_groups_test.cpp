// Which group counts, and what it leaves alone. Held against torch's groups in test/unit/optim.
#include "optim/parameter_groups.h"

#include <gtest/gtest.h>

namespace mixpl {
namespace {

ParameterGroups groups_of(const std::string& json) {
  return ParameterGroups(Options(json, "optimizer"));
}

struct Rates {
  float lr_factor, weight_decay;
  bool operator==(const Rates&) const = default;
};

Rates rates(const ParameterGroups& groups, const std::string& path, bool norm = false) {
  const OptimizerTarget target = groups.target(path, Tensor(), norm);
  EXPECT_EQ(target.name, path);
  return {target.lr_factor, target.weight_decay};
}

std::string refusal(const std::string& json) {
  try {
    groups_of(json).check_matches({"backbone.conv1.weight", "head.bias"});
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(ParameterGroups, AnOptionalGroupMayMatchNothing) {
  EXPECT_EQ(refusal(R"({"groups": [{"match": "neck", "optional": true}]})"), "");
  const std::string beside =
      R"({"groups": [{"match": "neck", "optional": true}, {"match": "roi"}]})";
  EXPECT_NE(refusal(beside).find("optimizer.groups.1.match"), std::string::npos) << refusal(beside);
  const auto matched =
      groups_of(R"({"groups": [{"match": "head", "lrFactor": 3, "optional": true}]})");
  EXPECT_EQ(rates(matched, "head.bias"), (Rates{3, 1e-4f}));
}

TEST(ParameterGroups, WithoutAGroupAreAsTheirKindIs) {
  const auto plain = groups_of("{}");
  EXPECT_EQ(rates(plain, "backbone.bn1.bias", true), (Rates{1, 1e-4f}));
  const auto kinds = groups_of(
      R"({"weightDecay": 0.3, "normDecay": 0.2, "biasDecay": 0.1, "backboneLrFactor": 0.5})");
  EXPECT_EQ(rates(kinds, "backbone.conv1.weight"), (Rates{0.5f, 0.3f}));
  EXPECT_EQ(rates(kinds, "backbone.bn1.bias", true), (Rates{0.5f, 0.2f}));
  EXPECT_EQ(rates(kinds, "head.bias"), (Rates{1, 0.1f}));
  EXPECT_EQ(rates(kinds, "head.self_attn.in_proj_bias"), (Rates{1, 0.1f}));
  EXPECT_EQ(rates(kinds, "head.relative_position_bias_table"), (Rates{1, 0.3f}));
  EXPECT_EQ(rates(kinds, "head.backbone.weight"), (Rates{1, 0.3f}));
}

TEST(ParameterGroups, TheLongestMatchCountsAlone) {
  const auto groups = groups_of(R"({"weightDecay": 0.5, "groups": [
      {"match": "head", "lrFactor": 4, "weightDecayFactor": 0.5},
      {"match": "norm", "weightDecayFactor": 0},
      {"match": "bias", "lrFactor": 2},
      {"match": "head.layers.0"}]})");
  EXPECT_EQ(rates(groups, "head.fc.weight"), (Rates{4, 0.25f}));
  EXPECT_EQ(rates(groups, "head.layers.0.fc.weight"), (Rates{1, 0.5f}));
  EXPECT_EQ(rates(groups, "neck.norm.weight", true), (Rates{1, 0}));
  // As long as "head" and "norm", and before them.
  EXPECT_EQ(rates(groups, "head.norm.bias", true), (Rates{2, 0.5f}));
  EXPECT_EQ(rates(groups, "head.norm.weight", true), (Rates{4, 0.25f}));
}

TEST(ParameterGroups, WhatAGroupLeavesOutIsAsWithoutIt) {
  const auto groups = groups_of(R"({"weightDecay": 0.5, "normDecay": 0, "backboneLrFactor": 0.25,
      "groups": [{"match": "conv1", "weightDecayFactor": 2}, {"match": "bn1", "lrFactor": 3},
                 {"match": "bn2", "weightDecayFactor": 1}]})");
  EXPECT_EQ(rates(groups, "backbone.conv1.weight"), (Rates{0.25f, 1}));
  EXPECT_EQ(rates(groups, "backbone.bn1.weight", true), (Rates{3, 0}));
  EXPECT_EQ(rates(groups, "backbone.bn2.weight", true), (Rates{0.25f, 0.5f}));
}

TEST(ParameterGroups, SayWhichOptionIsWrong) {
  EXPECT_EQ(refusal(R"({"groups": [{"match": "bias"}, {"match": "bakbone"}, {"match": "no"}]})"),
            "optimizer.groups.1.match must be a part of a parameter's path (as in 'head.bias'), "
            "got 'bakbone'");
  EXPECT_EQ(refusal(R"({"groups": [{"lrFactor": 2}]})"),
            "optimizer.groups.0.match must be a part of a parameter's path, got nothing");
  EXPECT_EQ(refusal(R"({"groups": [{"match": "bias"}, {"match": "bias", "lrFactor": 2}]})"),
            "optimizer.groups.1.match must differ from that of the other groups, got 'bias' as in "
            "optimizer.groups.0");
  for (const char* factor : {"0", "-1", "1e-60", "1e+60"})
    EXPECT_EQ(refusal(str(R"({"groups": [{"match": "bias", "lrFactor": )", factor, "}]}")),
              str("optimizer.groups.0.lrFactor must be a number > 0, got ", factor));
  EXPECT_EQ(refusal(R"({"groups": [{"match": "bias", "weightDecayFactor": -0.5}]})"),
            "optimizer.groups.0.weightDecayFactor must be a number >= 0, got -0.5");
  EXPECT_EQ(refusal(R"({"groups": [{"match": "bias", "lrFactr": 1}]})"),
            "optimizer.groups.0: unknown option 'lrFactr'");
  EXPECT_EQ(refusal(R"({"groups": {"match": "bias"}})"),
            R"(optimizer: groups must be an array of objects, got {"match":"bias"})");
  EXPECT_EQ(refusal(R"({"groups": ["bias"]})"),
            R"(optimizer: groups must be an array of objects, got ["bias"])");
  EXPECT_EQ(refusal(R"({"biasDecay": -1})"), "optimizer.biasDecay must be a number >= 0, got -1");
  EXPECT_EQ(refusal(R"({"groups": []})"), "");
}

}  // namespace
}  // namespace mixpl
