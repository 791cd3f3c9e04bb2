// How boxes become numbers that a network regresses, and back.
#pragma once

#include <array>
#include <string>

#include "core/options.h"
#include "core/tensor.h"
#include "core/trace.h"
#include "detect/box_math.h"

namespace mixpl {

/// Delta coder (Girshick 2015): (delta - mean) / std against an anchor.
struct DeltaCoder {
  std::array<float, 4> means{0, 0, 0, 0}, stds{1, 1, 1, 1};
  float limit = 4.135166556742356f;  // ln(1000 / 16), of dw and dh
  bool both_sides = true;            // mmdetection; false: upper side only (torchvision)

  MIXPL_HD Delta encode(Box anchor, Box box) const {
    const Delta d = encode_delta(anchor, box);
    return {(d.x - means[0]) / stds[0], (d.y - means[1]) / stds[1], (d.w - means[2]) / stds[2],
            (d.h - means[3]) / stds[3]};
  }
  MIXPL_HD Box decode(Box anchor, Delta d) const {
    return decode_delta(anchor,
                        {d.x * stds[0] + means[0], d.y * stds[1] + means[1],
                         d.w * stds[2] + means[2], d.h * stds[3] + means[3]},
                        limit, both_sides);
  }
};

/// Adds what a trace says of a coder, each name with `suffix` behind it.
void add_numbers(Trace::Numbers& numbers, const DeltaCoder& coder, const std::string& suffix);

/// { means, stds, limit, bothSides }. @throws RangeError in the name of `op`
DeltaCoder read_delta_coder(const char* op, const Options& options);

/// Distance coder (Tian et al. 2019, FCOS): distances of a point to the sides of its box.
struct DistanceCoder {
  float most = 0;  // > 0: encoded distances are held in [0, most - 0.1] (mmdetection's max_dis)

  MIXPL_HD Sides encode(float x, float y, Box box) const {
    const Sides d = encode_sides(x, y, box);
    if (!(most > 0)) return d;
    const float high = most - 0.1f;
    return {lesser(greater(d.left, 0.0f), high), lesser(greater(d.top, 0.0f), high),
            lesser(greater(d.right, 0.0f), high), lesser(greater(d.bottom, 0.0f), high)};
  }
  MIXPL_HD Box decode(float x, float y, Sides d) const { return decode_sides(x, y, d); }
};

/// anchors, boxes f32 [B, 4] -> deltas f32 [B, 4]. @throws ShapeError, DTypeError
Tensor encode_boxes(const Tensor& anchors, const Tensor& boxes, const DeltaCoder& coder);
/// anchors, deltas f32 [B, 4] -> boxes f32 [B, 4]. @throws ShapeError, DTypeError
Tensor decode_boxes(const Tensor& anchors, const Tensor& deltas, const DeltaCoder& coder);

/// points f32 [B, 2] (x, y), boxes f32 [B, 4] -> left, top, right, bottom f32 [B, 4].
/// @throws ShapeError, DTypeError
Tensor encode_distances(const Tensor& points, const Tensor& boxes, const DistanceCoder& coder);
/// points f32 [B, 2], distances f32 [B, 4] -> boxes f32 [B, 4]. @throws ShapeError, DTypeError
Tensor decode_distances(const Tensor& points, const Tensor& distances, const DistanceCoder& coder);

/// Row by row of references and values, for loops and kernels.
struct CodeRowsView {
  enum class Code : uint8_t { encode_deltas, decode_deltas, encode_distances, decode_distances };
  Code code;
  const float *references, *values;
  float* out;
  DeltaCoder deltas;
  DistanceCoder distances;

  MIXPL_HD void operator()(int64_t i) const {
    const float *r = references + i * (code < Code::encode_distances ? 4 : 2), *v = values + 4 * i;
    const Box box{v[0], v[1], v[2], v[3]};
    float* to = out + 4 * i;
    const auto put = [to](float a, float b, float c, float d) {
      to[0] = a;
      to[1] = b;
      to[2] = c;
      to[3] = d;
    };
    if (code == Code::encode_deltas) {
      const Delta d = deltas.encode({r[0], r[1], r[2], r[3]}, box);
      put(d.x, d.y, d.w, d.h);
    } else if (code == Code::decode_deltas) {
      const Box b = deltas.decode({r[0], r[1], r[2], r[3]}, {v[0], v[1], v[2], v[3]});
      put(b.x1, b.y1, b.x2, b.y2);
    } else if (code == Code::encode_distances) {
      const Sides s = distances.encode(r[0], r[1], box);
      put(s.left, s.top, s.right, s.bottom);
    } else {
      const Box b = distances.decode(r[0], r[1], {v[0], v[1], v[2], v[3]});
      put(b.x1, b.y1, b.x2, b.y2);
    }
  }
};
namespace cpu {
void code_rows(int64_t rows, const CodeRowsView& view);
}  // namespace cpu
namespace cuda {
void code_rows(int64_t rows, const CodeRowsView& view);
}  // namespace cuda

}  // namespace mixpl
