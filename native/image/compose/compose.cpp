#include "image/compose/compose.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/launch.h"

namespace mixpl {
namespace {

void check_layer(const ComposeLayer& l, const ComposeImage& image, size_t sources, size_t n) {
  const auto fail = [&](const auto&... parts) {
    throw RangeError(str("compose: image ", n, ": ", parts...));
  };
  if (l.source < 0 || static_cast<size_t>(l.source) >= sources)
    fail("source must be in [0, ", static_cast<int64_t>(sources) - 1, "], got ", l.source);
  for (double v : l.map)
    if (!std::isfinite(v) || std::fabs(v) > 1e9) fail("map must hold finite numbers, got ", v);
  if (l.x1 < 0 || l.y1 < 0 || l.x2 > image.width || l.y2 > image.height || l.x1 > l.x2 ||
      l.y1 > l.y2)
    fail("rect must lie inside the composition (", image.width, "x", image.height, "), got [", l.x1,
         ", ", l.y1, ", ", l.x2, ", ", l.y2, "]");
  if (!std::isfinite(l.weight)) fail("weight must be finite, got ", l.weight);
  for (float f : l.fill)
    if (!(f >= 0 && f <= 255)) fail("fill must be in [0, 255], got ", f);
  for (const ColorStep& c : l.color)
    if (!(std::fabs(c.magnitude) <= 1e4))
      fail("colour magnitude must be in [-10000, 10000], got ", c.magnitude);
  const auto is_sharpness = [](const ColorStep& c) { return c.op == ColorOp::sharpness; };
  if (const auto n = std::count_if(l.color.begin(), l.color.end(), is_sharpness);
      n > kMostSharpness)
    fail("color must hold at most ", kMostSharpness, " sharpness operations, got ", n);
  for (const EraseRect& e : l.erase)
    if (!(e.value <= 255))
      fail("erased value must be in [0, 255] (or negative for the mean), got ", e.value);
  // The homogeneous coordinate must not vanish over the rectangle.
  for (const auto& [x, y] :
       {std::pair{l.x1, l.y1}, std::pair{l.x2, l.y1}, std::pair{l.x1, l.y2}, std::pair{l.x2, l.y2}})
    if (!(l.map[6] * x + l.map[7] * y + l.map[8] > 1e-9))
      fail("map must keep a positive third coordinate over the rectangle");
}

}  // namespace

void compose(const std::vector<ComposeImage>& images, const std::vector<ComposeSource>& sources,
             const Normalisation& normalisation, Tensor& out) {
  const Check check("compose");
  check.floating("out", out);
  check.rank("out", out, 4, "N, H, W, 3");
  check.size("out", out, 0, static_cast<int64_t>(images.size()), "one image each");
  check.size("out", out, 3, 3, "RGB or BGR");
  constexpr int64_t kMostBytes = int64_t{1} << 31;
  for (const ComposeSource& s : sources)
    if (!s.data || s.width < 1 || s.height < 1 || int64_t{3} * s.width * s.height >= kMostBytes)
      throw ShapeError(str("compose: source must have pixels, fewer than 2 GiB of them, got ",
                           s.width, "x", s.height));
  for (float s : normalisation.std)
    if (!(s > 0 && std::isfinite(s)))
      throw RangeError(str("compose: std must be > 0 and finite, got ", s));
  for (float m : normalisation.mean)
    if (!std::isfinite(m)) throw RangeError(str("compose: mean must be finite, got ", m));
  for (size_t n = 0; n < images.size(); ++n) {
    const ComposeImage& image = images[n];
    if (image.width < 0 || image.height < 0 || image.width > out.size(2) ||
        image.height > out.size(1))
      throw ShapeError(str("compose: image ", n, " must fit the batch ", out.size(2), "x",
                           out.size(1), ", got ", image.width, "x", image.height));
    for (const ComposeLayer& layer : image.layers) check_layer(layer, image, sources.size(), n);
  }
  MIXPL_DISPATCH(out.device(), compose, images, sources, normalisation, out);
}

}  // namespace mixpl
