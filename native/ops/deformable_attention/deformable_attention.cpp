#include "ops/deformable_attention/deformable_attention.h"

#include <limits>

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/deformable_attention/deformable_attention_math.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

const Check check("deformableAttention");

void check_maps(const Tensor& value, const std::vector<MapSize>& maps) {
  check.in_range("the number of maps", static_cast<double>(maps.size()), 1, kMostAttentionLevels);
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  int64_t cells = 0;
  for (const MapSize& map : maps) {
    check.in_range("height of a map", static_cast<double>(map.height), 1, 1 << 24);
    check.in_range("width of a map", static_cast<double>(map.width), 1, 1 << 24);
    cells += map.height * map.width;
  }
  check.in_range("cells of the maps", static_cast<double>(cells), 1, static_cast<double>(kMost));
  check.size("value", value, 1, cells, "cells of the maps");
}

void check_inputs(const Tensor& value, const std::vector<MapSize>& maps, const Tensor& offsets,
                  const Tensor& logits, const Tensor& references, const Tensor& ratios,
                  int64_t heads) {
  check.floating("value", value);
  check.rank("value", value, 3, "N, S, M * D");
  check_maps(value, maps);
  check.in_range("heads", static_cast<double>(heads), 1, 1 << 16);
  if (value.size(2) % heads != 0)
    throw ShapeError(str("deformableAttention: axis 2 of value must be a multiple of ", heads,
                         " (heads), got ", value.shape()));
  check.floating("offsets", offsets);
  check.rank("offsets", offsets, 3, "N, Q, M * L * P * 2");
  const auto levels = static_cast<int64_t>(maps.size());
  const int64_t of_point = heads * levels * 2, points = offsets.size(2) / of_point;
  check.size("offsets", offsets, 0, value.size(0), "images of value");
  if (points < 1 || offsets.size(2) % of_point != 0)
    throw ShapeError(str("deformableAttention: axis 2 of offsets must be a multiple of ", of_point,
                         " (heads, maps, x and y), got ", offsets.shape()));
  check.in_range("samples of a head", static_cast<double>(points * levels), 1,
                 kMostAttentionSamples);
  check.dtype("logits", logits, offsets.dtype());
  check.shape("logits", logits, {offsets.size(0), offsets.size(1), offsets.size(2) / 2},
              "one for each x and y of offsets");
  check.dtype("references", references, DType::f32);
  check.rank("references", references, 3, "N, Q, 2 or 4");
  const int64_t coordinates = references.size(2) == 4 ? 4 : 2;
  check.shape("references", references, {offsets.size(0), offsets.size(1), coordinates},
              "x y or x y w h of each query");
  check.dtype("ratios", ratios, DType::f32);
  check.shape("ratios", ratios, {value.size(0), levels, 2}, "x and y for each image and map");
  check.same_device("offsets", offsets, value);
  check.same_device("logits", logits, value);
  check.same_device("references", references, value);
  check.same_device("ratios", ratios, value);
}

}  // namespace

Tensor deformable_attention(const Tensor& value, const std::vector<MapSize>& maps,
                            const Tensor& offsets, const Tensor& logits, const Tensor& references,
                            const Tensor& ratios, int64_t heads) {
  check_inputs(value, maps, offsets, logits, references, ratios, heads);
  Tensor out =
      Tensor::empty({value.size(0), offsets.size(1), value.size(2)}, value.dtype(), value.device());
  MIXPL_DISPATCH(value.device(), deformable_attention_forward, value, maps, offsets, logits,
                 references, ratios, heads, out);
  record(out, {value, offsets, logits, references}, [=](const Tensor& dout) {
    const auto wanted = [](const Tensor& t) {
      return t.requires_grad() ? Tensor::empty_like(t) : Tensor();
    };
    DeformableAttentionGradients grads{wanted(value), wanted(offsets), wanted(logits),
                                       wanted(references)};
    MIXPL_DISPATCH(value.device(), deformable_attention_backward, dout, value, maps, offsets,
                   logits, references, ratios, heads, grads);
    return Gradients{grads.value, grads.offsets, grads.logits, grads.references};
  });
  if (is_traced()) {
    Trace::Numbers numbers{{"heads", static_cast<double>(heads)},
                           {"levels", static_cast<double>(maps.size())}};
    for (size_t l = 0; l < maps.size(); ++l) {
      numbers[str("height", l)] = static_cast<double>(maps[l].height);
      numbers[str("width", l)] = static_cast<double>(maps[l].width);
    }
    note("deformableAttention", {value, offsets, logits, references, ratios}, {out},
         std::move(numbers));
  }
  return out;
}

namespace {
const bool registered =
    register_op("deformableAttention", [](const std::vector<Tensor>& in, const Options& options) {
      if (in.size() != 5)
        throw ShapeError(str("deformableAttention: needs 5 tensors, got ", in.size()));
      const std::vector<double> sizes = options.numbers("maps", {});
      if (sizes.size() % 2 != 0)
        throw RangeError(str("deformableAttention: maps must be pairs (height, width), got ",
                             sizes.size(), " numbers"));
      std::vector<MapSize> maps;
      for (size_t i = 0; i < sizes.size(); i += 2)
        maps.push_back({static_cast<int64_t>(sizes[i]), static_cast<int64_t>(sizes[i + 1])});
      return std::vector<Tensor>{deformable_attention(in[0], maps, in[1], in[2], in[3], in[4],
                                                      options.integer("heads", 1))};
    });
}  // namespace

}  // namespace mixpl
