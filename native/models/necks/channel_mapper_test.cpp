#include "models/necks/channel_mapper.h"

#include <gtest/gtest.h>

namespace mixpl {
namespace {

using Shapes = std::vector<Shape>;

Tensor noise(const Shape& shape, uint64_t stream) {
  Tensor t = Tensor::empty(shape, DType::f32);
  const Philox random(7, stream);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = random.uniform(i) - 0.5f;
  return t;
}

// C2 … C5 of one image; odd sizes.
const std::vector<int64_t> channels{4, 6, 8, 10};
std::vector<Tensor> pyramid() {
  return {noise({1, 27, 36, 4}, 1), noise({1, 14, 18, 6}, 2), noise({1, 7, 9, 8}, 3),
          noise({1, 4, 5, 10}, 4)};
}

std::vector<std::string> names_in(const ParameterStore& store) {
  std::vector<std::string> names;
  for (const Parameter& p : store.all()) names.push_back(p.name);
  return names;
}

Shapes shapes_of(const std::vector<Tensor>& maps) {
  Shapes shapes;
  for (const Tensor& map : maps) shapes.push_back(map.shape());
  return shapes;
}

ChannelMapperOptions read(const std::string& json) {
  return ChannelMapperOptions::read(Options(json, "neck"), {});
}

TEST(ChannelMapper, HasTheNamesAndSizesOfMmdetection) {
  ParameterStore store;
  ChannelMapperOptions options;
  options.channels = 64;
  options.num_outputs = 5;
  const ChannelMapper neck(Scope(store, 1).child("neck"), channels, options);
  EXPECT_EQ(names_in(store),
            (std::vector<std::string>{
                "neck.convs.0.conv.weight", "neck.convs.0.gn.weight", "neck.convs.0.gn.bias",
                "neck.convs.1.conv.weight", "neck.convs.1.gn.weight", "neck.convs.1.gn.bias",
                "neck.convs.2.conv.weight", "neck.convs.2.gn.weight", "neck.convs.2.gn.bias",
                "neck.extra_convs.0.conv.weight", "neck.extra_convs.0.gn.weight",
                "neck.extra_convs.0.gn.bias", "neck.extra_convs.1.conv.weight",
                "neck.extra_convs.1.gn.weight", "neck.extra_convs.1.gn.bias"}));
  EXPECT_EQ(store.find("neck.convs.1.conv.weight")->value.shape(), (Shape{64, 1, 1, 8}));
  EXPECT_EQ(store.find("neck.extra_convs.0.conv.weight")->value.shape(), (Shape{64, 3, 3, 10}));
  EXPECT_EQ(store.find("neck.extra_convs.1.conv.weight")->value.shape(), (Shape{64, 3, 3, 64}));
  EXPECT_EQ(shapes_of(neck({pyramid()})[0]),
            (Shapes{{1, 14, 18, 64}, {1, 7, 9, 64}, {1, 4, 5, 64}, {1, 2, 3, 64}, {1, 1, 2, 64}}));
}

TEST(ChannelMapper, ConvolvesWithoutActivationAndExtraLevelsFromC5) {
  ParameterStore store;
  ChannelMapperOptions options;
  options.channels = 8;
  options.first_level = 5;
  options.num_outputs = 3;
  options.norm = NormKind::none;
  const ChannelMapper neck(Scope(store, 1), channels, options);
  EXPECT_EQ(names_in(store),
            (std::vector<std::string>{"convs.0.conv.weight", "convs.0.conv.bias",
                                      "extra_convs.0.conv.weight", "extra_convs.0.conv.bias",
                                      "extra_convs.1.conv.weight", "extra_convs.1.conv.bias"}));
  const std::vector<Tensor> c = pyramid(), out = neck({c})[0];
  const auto expected = [&](const Tensor& x, const std::string& name, int stride, int padding) {
    Conv2dOptions conv;
    conv.stride = stride;
    conv.padding = padding;
    return conv2d(x, store.find(name + ".conv.weight")->value,
                  store.find(name + ".conv.bias")->value, conv)
        .to_vector<float>();
  };
  EXPECT_EQ(out[0].to_vector<float>(), expected(c[3], "convs.0", 1, 0));
  EXPECT_EQ(out[1].to_vector<float>(), expected(c[3], "extra_convs.0", 2, 1));
  EXPECT_EQ(out[2].to_vector<float>(), expected(out[1], "extra_convs.1", 2, 1));
}

TEST(ChannelMapper, ReadsItsOptions) {
  const ChannelMapperOptions all = read(
      R"({"type": "channel-mapper", "channels": 128, "firstLevel": 2, "numOutputs": 5, "norm": "none"})");
  EXPECT_EQ(all.channels, 128);
  EXPECT_EQ(all.first_level, 2);
  EXPECT_EQ(all.num_outputs, 5);
  EXPECT_EQ(all.norm, NormKind::none);
  EXPECT_EQ(read("{}").norm, NormKind::gn);
  EXPECT_EQ(read("{}").num_outputs, 4);
  for (const char* bad : {R"({"type": "fpn"})", R"({"channels": 0})", R"({"firstLevel": 6})",
                          R"({"firstLevel": 1})", R"({"numOutputs": 2})", R"({"numOutputs": 9})",
                          R"({"norm": "bn"})", R"({"extra": "none"})"})
    EXPECT_THROW(read(bad), ConfigError) << bad;
}

}  // namespace
}  // namespace mixpl
