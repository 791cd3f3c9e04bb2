// Boxes by centre and size in shares of an image, once for both devices.
#pragma once

#include "detect/box_math.h"
#include "detect/detections.h"

namespace mixpl {

/// In shares of an image.
struct alignas(16) CenterBox {
  float cx, cy, w, h;
};

/// In pixels.
MIXPL_HD Box box_from_center(CenterBox b, ImageSize size) {
  return {(b.cx - 0.5f * b.w) * size.width, (b.cy - 0.5f * b.h) * size.height,
          (b.cx + 0.5f * b.w) * size.width, (b.cy + 0.5f * b.h) * size.height};
}

/// dL/dbox from dL/dcorners of box_from_center.
MIXPL_HD CenterBox center_gradient(Box d, ImageSize size) {
  return {(d.x1 + d.x2) * size.width, (d.y1 + d.y2) * size.height,
          0.5f * (d.x2 - d.x1) * size.width, 0.5f * (d.y2 - d.y1) * size.height};
}

/// In shares of the image, corners still.
MIXPL_HD Box shares_of(Box b, ImageSize size) {
  return {b.x1 / size.width, b.y1 / size.height, b.x2 / size.width, b.y2 / size.height};
}
/// Of corners in shares.
MIXPL_HD CenterBox center_of_shares(Box b) {
  return {0.5f * (b.x1 + b.x2), 0.5f * (b.y1 + b.y2), b.x2 - b.x1, b.y2 - b.y1};
}

}  // namespace mixpl
