// Both devices compose the same pictures, to the bit: geometry and decisions are worked out once,
// sums and roundings follow the same order.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "core/device.h"
#include "image/compose/compose.h"

namespace mixpl {
namespace {

struct Batch {
  std::vector<std::vector<uint8_t>> pixels;
  std::vector<ComposeSource> sources;
  std::vector<ComposeImage> images;
  Normalisation norm;
  int64_t height = 0, width = 0;
};

class Draw {
 public:
  explicit Draw(uint32_t seed) : engine_(seed) {}
  int whole(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine_); }
  double real(double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(engine_);
  }
  bool chance(double p) { return real(0, 1) < p; }

 private:
  std::mt19937 engine_;
};

void add_source(Batch& batch, int width, int height, Draw& draw) {
  std::vector<uint8_t> pixels(size_t(width) * height * 3);
  // A few values now and then, so that histograms have gaps.
  const int low = draw.whole(0, 100), high = draw.whole(low, 255);
  for (uint8_t& v : pixels) v = static_cast<uint8_t>(draw.whole(low, high));
  batch.pixels.push_back(std::move(pixels));
  batch.sources.push_back({batch.pixels.back().data(), width, height});
}

/// Composition -> source: resized and flipped; turned; sheared; in perspective.
std::array<double, 9> random_map(Draw& draw, const ComposeSource& source) {
  const auto zoom = [&] { return std::exp(draw.real(-1.5, 2)); };
  const double sx = zoom() * (draw.chance(0.5) ? 1 : -1), sy = zoom();
  const double u = draw.real(-5, source.width + 5), v = draw.real(-5, source.height / 2.0);
  switch (draw.whole(0, 4)) {
    case 0: {
      const double angle = draw.real(-1, 1);
      return {sy * std::cos(angle),
              -sy * std::sin(angle),
              u,
              sy * std::sin(angle),
              sy * std::cos(angle),
              v,
              0,
              0,
              1};
    }
    case 1:
      return {sx, draw.real(-0.5, 0.5), u, 0, sy, v, 0, 0, 1};
    case 2:
      return {sx, 0.1, u, -0.1, sy, v, 2e-3, 1e-3, 1};
    case 3:  // whole pixels: nothing is interpolated
      return {1, 0, double(draw.whole(-3, 3)), 0, 1, double(draw.whole(-3, 3)), 0, 0, 1};
    default:
      return {sx, 0, u, 0, sy, v, 0, 0, 1};
  }
}

ComposeLayer random_layer(Draw& draw, const Batch& batch, const ComposeImage& image) {
  ComposeLayer l;
  l.source = draw.whole(0, static_cast<int>(batch.sources.size()) - 1);
  l.map = random_map(draw, batch.sources[l.source]);
  l.x1 = draw.whole(0, image.width);
  l.y1 = draw.whole(0, image.height);
  l.x2 = draw.whole(l.x1, image.width);
  l.y2 = draw.whole(l.y1, image.height);
  if (draw.chance(0.5)) l.x1 = l.y1 = 0, l.x2 = image.width, l.y2 = image.height;
  l.weight = static_cast<float>(draw.real(-1, 1));
  for (float& f : l.fill) f = static_cast<float>(draw.real(0, 255));
  l.color_fill = draw.chance(0.5);
  l.antialias = draw.chance(0.75);
  for (int i = draw.chance(0.6) ? draw.whole(1, 4) : 0; i > 0; --i)
    l.color.push_back({static_cast<ColorOp>(draw.whole(0, 7)), draw.real(0, 4)});
  for (int i = draw.chance(0.5) ? draw.whole(1, 5) : 0; i > 0; --i) {
    const int x = draw.whole(-4, image.width), y = draw.whole(-4, image.height);
    l.erase.push_back({x, y, x + draw.whole(0, 20), y + draw.whole(0, 20),
                       draw.chance(0.5) ? -1.0f : static_cast<float>(draw.real(0, 255))});
  }
  return l;
}

Batch random_batch(uint32_t seed) {
  Draw draw(seed);
  Batch batch;
  for (int i = draw.whole(1, 4); i > 0; --i)
    add_source(batch, draw.whole(1, 60), draw.whole(1, 60), draw);
  batch.images.resize(draw.whole(0, 3));
  for (ComposeImage& image : batch.images) {
    image.width = draw.whole(1, 80);
    image.height = draw.whole(1, 60);
    for (int i = draw.whole(0, 3); i > 0; --i)
      image.layers.push_back(random_layer(draw, batch, image));
    batch.width = std::max<int64_t>(batch.width, image.width + draw.whole(0, 9));
    batch.height = std::max<int64_t>(batch.height, image.height + draw.whole(0, 20));
  }
  batch.norm = {{100, 110, 120}, {50, 60, 70}, draw.chance(0.5)};
  return batch;
}

template <typename T>
std::vector<T> composed(const Batch& batch, Device device) {
  Tensor out =
      Tensor::empty({static_cast<int64_t>(batch.images.size()), batch.height, batch.width, 3},
                    dtype_of<T>(), device);
  compose(batch.images, batch.sources, batch.norm, out);
  return out.to_vector<T>();
}

template <typename T>
void expect_same(const Batch& batch, const std::string& what) {
  const std::vector<T> cpu = composed<T>(batch, Device::cpu());
  const std::vector<T> cuda = composed<T>(batch, Device::parse("cuda"));
  ASSERT_EQ(cpu.size(), cuda.size());
  for (size_t i = 0; i < cpu.size(); ++i)
    ASSERT_EQ(float(cpu[i]), float(cuda[i]))
        << what << ", value " << i << ": channel " << i % 3 << ", column " << i / 3 % batch.width
        << ", row " << i / 3 / batch.width;
}

class ComposeCuda : public testing::Test {
 protected:
  void SetUp() override {
    if (!cuda_reason().empty()) GTEST_SKIP() << cuda_reason();
  }
};

TEST_F(ComposeCuda, EqualsTheCpuOnRandomCompositions) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    const Batch batch = random_batch(seed);
    expect_same<float>(batch, str("seed ", seed));
    if (seed % 8 == 0) expect_same<bfloat16>(batch, str("seed ", seed, ", bf16"));
  }
}

// Whose tables need the whole source, and sources of more pixels than a block looks at in one turn.
TEST_F(ComposeCuda, EqualsTheCpuInEveryColourOperation) {
  Draw draw(7);
  for (int op = 0; op <= static_cast<int>(ColorOp::brightness); ++op)
    for (const auto& [width, height] : {std::pair{1, 1}, {37, 3}, {190, 211}}) {
      Batch batch;
      add_source(batch, width, height, draw);
      ComposeLayer layer;
      layer.x2 = batch.width = width;
      layer.y2 = batch.height = height;
      for (double magnitude : {0.0, 0.7, 1.5, 3.0, 200.0}) {
        layer.color = {{static_cast<ColorOp>(op), magnitude}};
        batch.images.push_back({width, height, {layer}});
      }
      expect_same<float>(batch, str("operation ", op, ", ", width, "x", height));
    }
}

TEST_F(ComposeCuda, SharpensAsOftenAsALayerMay) {
  Draw draw(8);
  Batch batch;
  add_source(batch, 70, 50, draw);
  ComposeLayer layer;
  layer.x2 = batch.width = 70;
  layer.y2 = batch.height = 50;
  layer.color.assign(kMostSharpness, {ColorOp::sharpness, 1.2});
  batch.images.push_back({70, 50, {layer}});
  expect_same<float>(batch, "at most");
  batch.images[0].layers[0].color.push_back({ColorOp::sharpness, 1.2});
  EXPECT_THROW(composed<float>(batch, Device::cpu()), RangeError);
}

}  // namespace
}  // namespace mixpl
