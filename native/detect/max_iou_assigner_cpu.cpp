#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "detect/max_iou_assigner.h"

namespace mixpl::cpu {
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

// One image: a anchors, g boxes; valid may be null.
void assign_image(const Box* anchor, int64_t a, const Box* box, int64_t g, const uint8_t* valid,
                  const MaxIouOptions& o, int32_t* assigned) {
  const auto is_valid = [&](int64_t i) { return !valid || valid[i]; };
  if (g == 0) {
    for (int64_t i = 0; i < a; ++i) assigned[i] = is_valid(i) ? kNegative : kIgnored;
    return;
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
    block.load(anchor + p * kBlock, valid ? valid + p * kBlock : nullptr, count);
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
      assigned[at] = is_valid(at) ? assignment_of(block.best[i], block.best_box[i], o) : kIgnored;
    }
  });
  if (!low_quality) return;

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
}

}  // namespace

void assign_max_iou(const Tensor& anchors, const Truth& truth, const Tensor& valid,
                    const MaxIouOptions& options, Tensor& assigned) {
  const TruthView view(truth);
  const Box* anchor = reinterpret_cast<const Box*>(anchors.data<float>());
  const uint8_t* flags = valid.defined() ? valid.data<uint8_t>() : nullptr;
  const int64_t a = assigned.size(1), next = anchors.rank() == 3 ? a : 0;
  for (int64_t n = 0; n < truth.images(); ++n)
    assign_image(anchor + n * next, a, view.boxes + view.begin(n), view.count(n),
                 flags ? flags + n * a : nullptr, options, assigned.data<int32_t>() + n * a);
}

}  // namespace mixpl::cpu
