// Composition: the one way pixels get into the network. An input is a weighted sum of layers; a
// layer is a source image seen through a map, with colour operations and erased rectangles.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace mixpl {

/// Decoded picture, RGB, HWC, borrowed.
struct ComposeSource {
  const uint8_t* data = nullptr;
  int width = 0, height = 0;
};

/// Colour operations of the strong view (mmcv's definitions, on uint8 values after resampling).
enum class ColorOp : uint8_t {
  auto_contrast,  // per channel: [min, max] of the source stretched to [0, 255]
  equalize,       // per channel: PIL's histogram equalisation of the source
  sharpness,      // m v + (1 - m) smooth(v), 3x3 smooth [1 1 1; 1 5 1; 1 1 1] / 13
  posterize,      // keep the m highest bits
  solarize,       // v >= m becomes 255 - v
  color,          // m v + (1 - m) grey(v)
  contrast,       // m v + (1 - m) mean grey of the source
  brightness,     // m v
};

struct ColorStep {
  ColorOp op;
  float magnitude;
};

struct EraseRect {
  int x1, y1, x2, y2;  // pixels of the composition
  float value;         // uint8 units; negative: the layer contributes 0 there (the mean colour)
};

struct ComposeLayer {
  int source = 0;
  std::array<double, 9> map{1, 0, 0, 0, 1, 0, 0, 0, 1};  // composition -> source, continuous
  int x1 = 0, y1 = 0, x2 = 0, y2 = 0;                    // where the layer lies, pixels
  float weight = 1;
  std::array<float, 3> fill{0, 0, 0};  // RGB, uint8 units: inside the rectangle, outside the source
  bool color_fill = false;             // the colour operations change the fill, too
  std::vector<ColorStep> color;
  std::vector<EraseRect> erase;
};

struct ComposeImage {
  int width = 0, height = 0;
  std::vector<ComposeLayer> layers;
};

struct Normalisation {
  std::array<float, 3> mean{0, 0, 0}, std{1, 1, 1};  // in the order of the output's channels
  bool bgr = false;                                  // output channels B, G, R
};

/// out[n, y, x, c] = sum over layers of weight * (colour(resampled value) - mean) / std; 0 where no
/// layer lies, and beyond an image's own size.
///
/// A sample whose centre falls inside the source is interpolated bilinearly with the edge repeated,
/// and averaged over the pixel's footprint where the layer shrinks; outside it is the fill.
///
/// @param out f32|bf16 [N, H, W, 3], at least as large as every image; all of it is written
/// @throws    ShapeError, RangeError: a map that is not finite, a rectangle beyond its image, ...
void compose(const std::vector<ComposeImage>& images, const std::vector<ComposeSource>& sources,
             const Normalisation& normalisation, Tensor& out);

namespace cpu {
void compose(const std::vector<ComposeImage>& images, const std::vector<ComposeSource>& sources,
             const Normalisation& normalisation, Tensor& out);
}

}  // namespace mixpl
