#include "detect/max_iou_assigner.h"

#include <algorithm>

#include "core/check.h"
#include "core/parallel.h"
#include "detect/box_iou.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

// Anchors are met in blocks whose coordinates lie apart, so that one box is compared with eight of
// them at a time.
constexpr int kBlock = 256;

struct Block {
  alignas(64) float x1[kBlock], y1[kBlock], x2[kBlock], y2[kBlock], area[kBlock];
  alignas(64) float best[kBlock];
  alignas(64) int32_t best_box[kBlock];

  // Anchors that take no part (invalid ones, the rest of the last block) become points far away:
  // their IoU is 0 with every box.
  void load(const Box* anchors, const uint8_t* valid, int count) {
    for (int i = 0; i < kBlock; ++i) {
      const bool used = i < count && (!valid || valid[i]);
      const Box b = used ? anchors[i] : Box{-1e30f, -1e30f, -1e30f, -1e30f};
      x1[i] = b.x1;
      y1[i] = b.y1;
      x2[i] = b.x2;
      y2[i] = b.y2;
      area[i] = box_area(b);
    }
  }
  float iou(int i, Box b, float own) const {
    const float w = greater(lesser(x2[i], b.x2) - greater(x1[i], b.x1), 0.0f);
    const float h = greater(lesser(y2[i], b.y2) - greater(y1[i], b.y1), 0.0f);
    return iou_of_areas(area[i], own, w * h);
  }
  void start() {
    std::fill_n(best, kBlock, -1.0f);
    std::fill_n(best_box, kBlock, 0);
  }
  // Lets anchors take box j if it is their best so far; returns the block's best IoU with it.
  float offer(int32_t j, Box b) {
    const float own = box_area(b);
    alignas(64) float value[kBlock];
    for (int i = 0; i < kBlock; ++i) value[i] = iou(i, b, own);
    float most[16] = {};
    for (int i = 0; i < kBlock; i += 16)
      for (int k = 0; k < 16; ++k) most[k] = greater(most[k], value[i + k]);
    float highest = 0;
    for (float m : most) highest = greater(highest, m);
    for (int i = 0; i < kBlock; ++i) {
      const bool better = value[i] > best[i];
      best_box[i] = better ? j : best_box[i];
      best[i] = better ? value[i] : best[i];
    }
    return highest;
  }
};

}  // namespace

void MaxIouOptions::validate() const {
  const auto share = [](const char* name, float value) {
    if (!(value >= 0 && value <= 1))
      throw ConfigError(str("assign.", name, " must be in [0, 1], got ", value));
  };
  share("posIou", pos_iou);
  share("negIou", neg_iou);
  share("minPosIou", min_pos_iou);
  if (neg_iou > pos_iou)
    throw ConfigError(str("assign.negIou must be at most posIou (", pos_iou, "), got ", neg_iou));
}

std::vector<int32_t> assign_max_iou(const Tensor& anchors, const Tensor& boxes,
                                    const std::vector<uint8_t>& valid, const MaxIouOptions& o) {
  const Box *anchor = as_boxes("assignMaxIou", "anchors", anchors),
            *box = as_boxes("assignMaxIou", "boxes", boxes);
  const int64_t a = anchors.size(0), g = boxes.size(0);
  if (!valid.empty() && static_cast<int64_t>(valid.size()) != a)
    throw ShapeError(
        str("assignMaxIou: valid must be [", a, "] (one an anchor), got [", valid.size(), "]"));
  const auto is_valid = [&](int64_t i) { return valid.empty() || valid[i]; };
  std::vector<int32_t> assigned(a);
  if (g == 0) {
    for (int64_t i = 0; i < a; ++i) assigned[i] = is_valid(i) ? kNegative : kIgnored;
    return assigned;
  }

  // First pass: each anchor's best box and, per block, each box's best IoU. No A x G matrix is
  // kept; the second pass recomputes the few IoUs it needs, bit for bit the same.
  const int64_t blocks = (a + kBlock - 1) / kBlock;
  const bool low_quality = o.match_low_quality;
  const bool restore = low_quality && o.low_quality == LowQuality::restore_best;
  std::vector<float> block_best(low_quality ? blocks * g : 0);
  std::vector<int32_t> own_best(restore ? a : 0);
  const auto load = [&](Block& block, int64_t p) {
    const int count = static_cast<int>(std::min<int64_t>(kBlock, a - p * kBlock));
    block.load(anchor + p * kBlock, valid.empty() ? nullptr : valid.data() + p * kBlock, count);
    return count;
  };
  parallel_for(blocks, int64_t{4}, [&](int64_t p) {
    Block block;
    const int count = load(block, p);
    block.start();
    for (int64_t j = 0; j < g; ++j) {
      const float highest = block.offer(static_cast<int32_t>(j), box[j]);
      if (low_quality) block_best[p * g + j] = highest;
    }
    for (int i = 0; i < count; ++i) {
      const int64_t at = p * kBlock + i;
      if (restore) own_best[at] = block.best_box[i];
      if (!is_valid(at) || (block.best[i] >= o.neg_iou && block.best[i] < o.pos_iou))
        assigned[at] = kIgnored;
      else
        assigned[at] = block.best[i] < o.neg_iou ? kNegative : block.best_box[i];
    }
  });
  if (!low_quality) return assigned;

  std::vector<float> best_of_box(g, 0.0f);
  for (int64_t p = 0; p < blocks; ++p)
    for (int64_t j = 0; j < g; ++j) best_of_box[j] = greater(best_of_box[j], block_best[p * g + j]);
  parallel_for(blocks, int64_t{4}, [&](int64_t p) {
    Block block;
    int count = 0;  // loaded when a box has its best here
    for (int64_t j = 0; j < g; ++j) {
      if (block_best[p * g + j] != best_of_box[j]) continue;
      if (!restore && best_of_box[j] < o.min_pos_iou) continue;
      if (count == 0) count = load(block, p);
      const float own = box_area(box[j]);
      for (int i = 0; i < count; ++i) {
        const int64_t at = p * kBlock + i;
        if (!is_valid(at) || block.iou(i, box[j], own) != best_of_box[j]) continue;
        assigned[at] = restore ? own_best[at] : static_cast<int32_t>(j);
      }
    }
  });
  return assigned;
}

namespace {
// Inputs: anchors, boxes, then valid u8 [A] if given; options as MaxIouOptions. Output: i32 [A].
const bool registered =
    register_op("assignMaxIou", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() != 2 && in.size() != 3)
        throw ShapeError(str("assignMaxIou: needs 2 or 3 tensors, got ", in.size()));
      MaxIouOptions options;
      options.pos_iou = static_cast<float>(o.number("posIou", options.pos_iou));
      options.neg_iou = static_cast<float>(o.number("negIou", options.neg_iou));
      options.min_pos_iou = static_cast<float>(o.number("minPosIou", options.min_pos_iou));
      options.match_low_quality = o.boolean("matchLowQuality", true);
      const std::string mode = o.text("lowQuality", "overwrite");
      if (mode != "overwrite" && mode != "restoreBest")
        throw ConfigError(
            str("assignMaxIou: lowQuality must be 'overwrite' or 'restoreBest', got '", mode, "'"));
      if (mode == "restoreBest") options.low_quality = LowQuality::restore_best;
      options.validate();
      std::vector<uint8_t> valid;
      if (in.size() == 3) {
        Check("assignMaxIou").dtype("valid", in[2], DType::u8);
        valid = in[2].to_vector<uint8_t>();
        if (static_cast<int64_t>(valid.size()) != in[0].size(0))
          throw ShapeError(str("assignMaxIou: valid must be [", in[0].size(0),
                               "] (one an anchor), got ", in[2].shape()));
      }
      const std::vector<int32_t> assigned = assign_max_iou(in[0], in[1], valid, options);
      return std::vector<Tensor>{Tensor::from(assigned, {static_cast<int64_t>(assigned.size())})};
    });
}  // namespace

}  // namespace mixpl
