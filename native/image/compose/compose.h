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

/// Colour operations of the strong view, as mmcv defines them, on values rounded to 8 bits after
/// resampling; every operation rounds to 8 bits again. Statistics are those of the whole source.
/// @source mmcv 2 image/photometric.py: blends in f32 are cut off, `color` and the blur are rounded
enum class ColorOp : uint8_t {
  auto_contrast,  // per channel: [min, max] of the source stretched to [0, 255]
  equalize,       // per channel: PIL's histogram equalisation of the source
  sharpness,      // m v + (1 - m) smooth(v), 3x3 smooth [1 1 1; 1 5 1; 1 1 1] / 13
  posterize,      // keep the ceil(m) highest bits; 0: black
  solarize,       // v >= m becomes 255 - v
  color,          // m v + (1 - m) grey(v)
  contrast,       // m v + (1 - m) mean grey of the source
  brightness,     // m v
};

struct ColorStep {
  ColorOp op;
  double magnitude;  // ignored by auto_contrast and equalize
};

struct EraseRect {
  int x1, y1, x2, y2;  // pixels of the composition
  float value;         // uint8 units; negative: the layer contributes 0 there (the mean colour)
};

/// Each widens the rim of neighbours that a tile of a layer needs; a policy has one at most.
constexpr int kMostSharpness = 16;

struct ComposeLayer {
  int source = 0;
  std::array<double, 9> map{1, 0, 0, 0, 1, 0, 0, 0, 1};  // composition -> source, continuous
  int x1 = 0, y1 = 0, x2 = 0, y2 = 0;                    // where the layer lies, pixels
  float weight = 1;
  std::array<float, 3> fill{0, 0, 0};  // RGB, uint8 units: inside the rectangle, outside the source
  bool color_fill = false;             // the colour operations change the fill, too
  bool antialias = true;               // where the layer shrinks; false: bilinear all the same
  std::vector<ColorStep> color;        // at most kMostSharpness of them sharpness
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
/// A pixel whose centre falls on the source is interpolated bilinearly with the edge repeated; off
/// the source it is the fill. Where the layer shrinks and antialias is on, it is averaged over its
/// footprint: under
/// axis-aligned maps by a triangle of twice the footprint per axis (at most twice the source);
/// under others by the mean of n x n samples, n = the shrinkage rounded, at most 16, of which those
/// off the source are the fill. Erased rectangles act in order after the colour operations.
/// The same bits on every device and for any number of threads.
///
/// @param out f32|bf16 [N, H, W, 3], at least as large as every image; all of it is written
/// @throws    ShapeError: a source without pixels or above 2 GiB, an image larger than the batch;
///            RangeError: a map that is not finite or whose third coordinate vanishes, a rectangle
///            beyond its image, a fill, magnitude or erased value that is no colour, ...
void compose(const std::vector<ComposeImage>& images, const std::vector<ComposeSource>& sources,
             const Normalisation& normalisation, Tensor& out);

namespace cpu {
void compose(const std::vector<ComposeImage>& images, const std::vector<ComposeSource>& sources,
             const Normalisation& normalisation, Tensor& out);
}
namespace cuda {
void compose(const std::vector<ComposeImage>& images, const std::vector<ComposeSource>& sources,
             const Normalisation& normalisation, Tensor& out);
}

}  // namespace mixpl
