#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/parallel.h"
#include "core/simd.h"
#include "detect/queries_math.h"
#include "detect/score_order.h"

namespace mixpl::cpu {
namespace {

// The first `most` of items that are met one by one. An item: a key by which it comes early, then
// its index; no two are equal.
class FirstItems {
 public:
  explicit FirstItems(int64_t most) : most_(static_cast<size_t>(most)) {}

  static uint64_t item(float score, int64_t index) {
    return uint64_t{descending_key(score)} << 32 | static_cast<uint64_t>(index);
  }
  static int64_t index_of(uint64_t item) { return static_cast<int64_t>(item & 0xffffffffu); }

  /// Whether the last that may still be chosen is another one now.
  bool add(uint64_t item) {
    if (item > last_) return false;
    items_.push_back(item);
    if (items_.size() < 2 * most_) return false;
    const auto end = items_.begin() + static_cast<std::ptrdiff_t>(most_);
    std::nth_element(items_.begin(), end - 1, items_.end());
    items_.erase(end, items_.end());
    last_ = items_.back();
    return true;
  }
  uint64_t last() const { return last_; }
  std::vector<uint64_t> sorted() {
    std::sort(items_.begin(), items_.end());
    if (items_.size() > most_) items_.resize(most_);
    return std::move(items_);
  }

 private:
  size_t most_;
  uint64_t last_ = ~uint64_t{0};
  std::vector<uint64_t> items_;
};

// The largest of n > 0 numbers, NaN if one is.
template <typename T>
float largest(const T* x, int64_t n) {
  float best = -INFINITY;
  bool nan = false;
  int64_t i = 0;
  if (n >= simd::kWidth) {
    simd::f32x8 most = simd::load(x);
    simd::i32x8 is_nan = most != most;
    for (i = simd::kWidth; i + simd::kWidth <= n; i += simd::kWidth) {
      const simd::f32x8 v = simd::load(x + i);
      is_nan |= v != v;
      most = simd::select(v > most, v, most);
    }
    for (int k = 0; k < simd::kWidth; ++k) {
      best = greater(most[k], best);
      nan |= is_nan[k] != 0;
    }
  }
  for (; i < n; ++i) {
    const float v = float(x[i]);
    nan |= v != v;
    best = greater(v, best);
  }
  return nan ? NAN : best;
}

template <typename T>
Detections best_pairs(const T* logits, int64_t pairs, int64_t classes, const CenterBox* boxes,
                      ImageSize size, int64_t most) {
  FirstItems first(most);
  // Below it no logit can be chosen. An exponential takes longer than all else here, and is spared
  // where it cannot matter: the margin is a thousand times its error.
  float least = -INFINITY;
  for (int64_t i = 0; i < pairs; ++i) {
    const float x = float(logits[i]);
    if (x < least || x != x) continue;
    if (first.add(FirstItems::item(sigmoid_of(x), i)))
      least = float(logits[FirstItems::index_of(first.last())]) - 1e-3f;
  }
  Detections out;
  for (uint64_t item : first.sorted()) {
    const int64_t i = FirstItems::index_of(item);
    const Box b = box_from_center(boxes[i / classes], size);
    if (has_nan(b)) continue;  // clipping would hide it
    const Box c = clip_box(b, size);
    if (!has_area(c)) continue;
    out.boxes.insert(out.boxes.end(), {c.x1, c.y1, c.x2, c.y2});
    out.scores.push_back(sigmoid_of(float(logits[i])));
    out.labels.push_back(static_cast<int32_t>(i % classes));
  }
  return out;
}

}  // namespace

void best_tokens(const Tensor& logits, int64_t count, int64_t by, Tensor& rows) {
  const int64_t images = logits.size(0), tokens = logits.size(1), classes = logits.size(2);
  int32_t* out = rows.data<int32_t>();
  std::vector<float> scores(static_cast<size_t>(images * tokens));
  dispatch_floating(logits.dtype(), [&](auto tag) {
    const auto* x = logits.data<decltype(tag)>();
    const int64_t numbers = by < 0 ? classes : 1;  // that a token takes
    parallel_for(images * tokens, std::max<int64_t>((1 << 16) / numbers, 1), [&](int64_t i) {
      scores[i] = by < 0 ? largest(x + i * classes, classes) : float(x[i * classes + by]);
    });
  });
  parallel_for(images, int64_t{1}, [&](int64_t n) {
    FirstItems first(count);
    for (int64_t s = 0; s < tokens; ++s) first.add(FirstItems::item(scores[n * tokens + s], s));
    int32_t* to = out + n * count;
    for (uint64_t item : first.sorted())
      *to++ = static_cast<int32_t>(n * tokens + FirstItems::index_of(item));
  });
}

void denoising_queries(const Truth& truth, const Tensor& sizes, int64_t classes,
                       const DenoisingOptions& options, const Philox& random,
                       DenoisingQueries& out) {
  parallel_for(out.labels.numel(), int64_t{512},
               DenoisingView(truth, sizes, classes, options, random, out));
}

void denoising_mask(const DenoisingQueries& denoising, Tensor& mask) {
  const int64_t all = mask.size(1), count = denoising.count(), size = denoising.group_size;
  uint8_t* out = mask.data<uint8_t>();
  parallel_for(all, int64_t{64}, [=](int64_t row) {
    uint8_t* to = out + row * all;
    std::memset(to, 1, static_cast<size_t>(count));
    std::memset(to + count, 0, static_cast<size_t>(all - count));
    if (row < count) std::memset(to + row / size * size, 0, static_cast<size_t>(size));
  });
}

PendingDetections detect_queries(const Tensor& logits, const Tensor& boxes, const Tensor& sizes,
                                 int64_t most) {
  const int64_t images = logits.size(0), queries = logits.size(1), classes = logits.size(2);
  const CenterBox* box = reinterpret_cast<const CenterBox*>(boxes.data<float>());
  std::vector<Detections> found(static_cast<size_t>(images));
  dispatch_floating(logits.dtype(), [&](auto tag) {
    const auto* x = logits.data<decltype(tag)>();
    parallel_for(images, int64_t{1}, [&](int64_t n) {
      found[n] = best_pairs(x + n * queries * classes, queries * classes, classes,
                            box + n * queries, sizes_in(sizes)[n], most);
    });
  });
  return found;
}

}  // namespace mixpl::cpu
