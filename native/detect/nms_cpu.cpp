#include "detect/nms.h"

#include <algorithm>
#include <numeric>

#include "core/parallel.h"
#include "detect/score_order.h"

namespace mixpl {
namespace {

// Boxes of one class with their coordinates apart, so that one box is compared with eight at a
// time.
struct BoxColumns {
  std::vector<float> x1, y1, x2, y2, area;

  void reserve(size_t n) {
    for (auto* column : {&x1, &y1, &x2, &y2, &area}) column->reserve(n);
  }
  void add(Box b, float own) {
    x1.push_back(b.x1);
    y1.push_back(b.y1);
    x2.push_back(b.x2);
    y2.push_back(b.y2);
    area.push_back(own);
  }
  size_t size() const { return x1.size(); }

  // Whether a box of [begin, end) has an IoU above `thr` with b.
  bool any_above(size_t begin, size_t end, Box b, float own, float thr) const {
    constexpr size_t kBlock = 64;
    // A first sieve without divisions: what it lets pass is divided. 1e-6 is more than what
    // rounding can move.
    const float sieve = thr * (1 - 1e-6f);
    const auto overlap = [&](size_t i) {
      const float w = greater(lesser(b.x2, x2[i]) - greater(b.x1, x1[i]), 0.0f);
      const float h = greater(lesser(b.y2, y2[i]) - greater(b.y1, y1[i]), 0.0f);
      return w * h;
    };
    for (; begin < end; begin += kBlock) {
      const size_t stop = std::min(end, begin + kBlock);
      int near = 0;
      for (size_t i = begin; i < stop; ++i) {
        const float inter = overlap(i);
        near |= inter > sieve * (own + area[i] - inter);
      }
      if (!near) continue;
      for (size_t i = begin; i < stop; ++i) {
        const float inter = overlap(i), whole = own + area[i] - inter;
        // Without a union (two points) there is no overlap either.
        if (whole > 0 && inter / whole > thr) return true;
      }
    }
    return false;
  }
};

// Positions in `order` [begin, end) of one class that are kept, best first, at most `most`.
std::vector<int32_t> suppress(const std::vector<Box>& boxes, const std::vector<int32_t>& order,
                              const std::vector<int32_t>& members, float thr, int64_t most) {
  const int64_t n = static_cast<int64_t>(members.size());
  std::vector<int32_t> out;
  BoxColumns kept;
  kept.reserve(static_cast<size_t>(std::min<int64_t>(n, most < 0 ? n : most)));
  // Window by window: all threads compare the window with what was kept before it, then one goes
  // through the window in order.
  constexpr int64_t kWindow = 512;
  std::vector<uint8_t> gone(kWindow);
  for (int64_t begin = 0; begin < n; begin += kWindow) {
    const int64_t count = std::min(kWindow, n - begin);
    const size_t before = kept.size();
    const auto box_at = [&](int64_t i) { return boxes[order[members[begin + i]]]; };
    parallel_for(count, int64_t{128}, [&](int64_t i) {
      const Box b = box_at(i);
      gone[i] = kept.any_above(0, before, b, box_area(b), thr);
    });
    for (int64_t i = 0; i < count; ++i) {
      if (gone[i]) continue;
      const Box b = box_at(i);
      const float own = box_area(b);
      if (kept.any_above(before, kept.size(), b, own, thr)) continue;
      kept.add(b, own);
      out.push_back(members[begin + i]);
      if (most >= 0 && static_cast<int64_t>(out.size()) >= most) return out;
    }
  }
  return out;
}

std::vector<int32_t> by_score(const std::vector<float>& scores) {
  std::vector<uint64_t> keys(scores.size());
  for (size_t i = 0; i < scores.size(); ++i)
    keys[i] = uint64_t{descending_key(scores[i])} << 32 | i;
  std::sort(keys.begin(), keys.end());
  std::vector<int32_t> order(scores.size());
  for (size_t i = 0; i < keys.size(); ++i) order[i] = static_cast<int32_t>(keys[i] & 0xffffffffu);
  return order;
}

}  // namespace

std::vector<int32_t> nms(const std::vector<Box>& boxes, const std::vector<float>& scores,
                         const std::vector<int32_t>& labels, float iou_thr, int64_t most) {
  const std::vector<int32_t> order = by_score(scores);
  // Ranks (positions in `order`) grouped by class, best first within a class.
  std::vector<int32_t> ranks(order.size());
  std::iota(ranks.begin(), ranks.end(), 0);
  if (!labels.empty())
    std::stable_sort(ranks.begin(), ranks.end(),
                     [&](int32_t a, int32_t b) { return labels[order[a]] < labels[order[b]]; });
  std::vector<std::vector<int32_t>> classes;
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (i == 0 || (!labels.empty() && labels[order[ranks[i]]] != labels[order[ranks[i - 1]]]))
      classes.emplace_back();
    classes.back().push_back(ranks[i]);
  }

  std::vector<std::vector<int32_t>> kept(classes.size());
  const auto run = [&](int64_t c) { kept[c] = suppress(boxes, order, classes[c], iou_thr, most); };
  // Large classes share their work between threads, small ones are dealt out whole.
  constexpr size_t kLarge = 2048;
  std::vector<int64_t> small;
  for (size_t c = 0; c < classes.size(); ++c)
    if (classes[c].size() >= kLarge)
      run(static_cast<int64_t>(c));
    else
      small.push_back(static_cast<int64_t>(c));
  const bool worthwhile = order.size() >= kLarge;
  parallel_for(static_cast<int64_t>(small.size()),
               worthwhile ? int64_t{1} : static_cast<int64_t>(small.size()),
               [&](int64_t i) { run(small[i]); });

  std::vector<int32_t> out;
  for (const auto& part : kept) out.insert(out.end(), part.begin(), part.end());
  std::sort(out.begin(), out.end());
  if (most >= 0 && static_cast<int64_t>(out.size()) > most) out.resize(most);
  for (int32_t& rank : out) rank = order[rank];
  return out;
}

Tensor cpu::nms_indices(const Tensor& boxes, const Tensor& scores, const Tensor& labels,
                        float iou_thr, int64_t most) {
  const Box* box = reinterpret_cast<const Box*>(boxes.data<float>());
  const std::vector<int32_t> kept =
      nms(std::vector<Box>(box, box + boxes.size(0)), scores.to_vector<float>(),
          labels.defined() ? labels.to_vector<int32_t>() : std::vector<int32_t>{}, iou_thr, most);
  return Tensor::from(kept, {static_cast<int64_t>(kept.size())});
}

}  // namespace mixpl
