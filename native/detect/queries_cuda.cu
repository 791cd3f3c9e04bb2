#include <algorithm>

#include "core/cuda/kernel.h"
#include "core/cuda/packs.h"
#include "detect/dense_scores.h"
#include "detect/queries_math.h"
#include "detect/score_order.h"
#include "detect/suppression_cuda.h"
#include "detect/top_items_cuda.h"

namespace mixpl::cuda {
namespace {

constexpr int kThreads = 256;

// kLanes lanes a row, in packs of N: the key of its largest number, NaN's if one is.
template <typename T, int N, int kLanes>
MIXPL_KERNEL __launch_bounds__(kThreads)
    largest_kernel(const T* __restrict__ logits, int64_t rows, int64_t packs, uint32_t* keys) {
  const int part = lane() % kLanes;
  const int64_t step = thread_count() / kLanes;
  // By whole warps, whose lanes ask each other at the end.
  for (int64_t first = thread_index() / 32 * (32 / kLanes); first < rows; first += step) {
    const int64_t row = first + lane() / kLanes;
    float best = -INFINITY;
    if (row < rows) {
      const T* x = logits + row * packs * N;
#pragma unroll 4
      for (int64_t p = part; p < packs; p += kLanes) {
        const Vec<T, N> v = load_vec<T, N>(x + p * N);
#pragma unroll
        for (int n = 0; n < N; ++n) best = Max()(best, float(v[n]));
      }
    }
#pragma unroll
    for (int mask = kLanes / 2; mask > 0; mask /= 2) best = Max()(best, shfl_xor(best, mask));
    if (part == 0 && row < rows) keys[row] = descending_key(best);
  }
}

struct LogitKeys {
  Numbers logits;
  int64_t classes, by;
  uint32_t* keys;
  MIXPL_DEVICE void operator()(int64_t i) const {
    keys[i] = descending_key(logits[i * classes + by]);
  }
};

void largest_keys(const Tensor& logits, uint32_t* keys) {
  const int64_t classes = logits.size(2), rows = logits.numel() / classes;
  dispatch_floating(logits.dtype(), [&](auto tag) {
    using T = decltype(tag);
    with_packs<T>(classes, [&](auto pack) {
      constexpr int N = decltype(pack)::value;
      const int64_t packs = classes / N;
      const auto run = [&](auto kernel, int lanes) {
        launch(kernel, blocks_for(rows * lanes, kThreads), kThreads, 0, logits.data<T>(), rows,
               packs, keys);
      };
      if (packs <= 64)
        run(largest_kernel<T, N, 8>, 8);
      else
        run(largest_kernel<T, N, 32>, 32);
    });
  });
}

// Tokens of images; all take part, those of NaN last.
struct TokensView {
  const uint32_t* keys;
  int64_t tokens, count;
  MIXPL_DEVICE int64_t length(int) const { return tokens; }
  MIXPL_DEVICE int64_t wanted(int) const { return count; }
  MIXPL_DEVICE uint64_t item(int image, int64_t token) const {
    return ordered_item(keys[image * tokens + token], token);
  }
};

// What was chosen, to be ranked.
struct TokenCandidates {
  const uint64_t* items;
  Candidate* out;
  MIXPL_DEVICE void operator()(int64_t i) const {
    out[i] = {items[i], items[i], {0, 0, 0, 0}, 0, 0};
  }
};

struct TokenRows {
  const int32_t* origin;
  int64_t tokens, count;
  int32_t* rows;
  MIXPL_DEVICE void operator()(int64_t i) const {
    rows[i] = static_cast<int32_t>(i / count * tokens) + origin[i];
  }
};

struct MaskView {
  uint8_t* mask;
  Divider all, group;  // of queries; of denoising ones
  uint32_t count;      // of denoising ones

  template <int N>
  MIXPL_DEVICE void values(int64_t i) const {
    uint32_t column = static_cast<uint32_t>(i), row = all.split(column);
    uint32_t own = group_of(row);
    Vec<uint8_t, N> out;
#pragma unroll
    for (int n = 0; n < N; ++n) {
      // Out of reach: denoising queries but those of the own group.
      out[n] = column < count && column - own >= group.divisor();
      if (++column == all.divisor()) {
        column = 0;
        own = group_of(++row);
      }
    }
    store_vec(mask + i, out);
  }

 private:
  /// Where the group of a query begins; behind all for a matching one.
  MIXPL_DEVICE uint32_t group_of(uint32_t row) const {
    return row < count ? group.quotient(row) * group.divisor() : count;
  }
};

// (query, class) pairs of an image by their scores.
struct PairPacks : top_items::NumberRow {
  DenseScores scores;

  MIXPL_DEVICE PairPacks(const DenseScores& scores, int64_t image)
      : NumberRow(scores.logits, image * scores.anchors * scores.classes,
                  scores.anchors * scores.classes),
        scores(scores) {}
  MIXPL_DEVICE Span span(top_items::Keys keys) const {
    return scores.logits_of({number_of_key(keys.last), number_of_key(keys.first)});
  }
  MIXPL_DEVICE uint64_t item(int64_t pair, float logit) const {
    return logit != logit ? kNoItem : ordered_item(descending_key(sigmoid_of(logit)), pair);
  }
};

struct PairsView {
  DenseScores scores;
  int64_t most;
  MIXPL_DEVICE int64_t length(int) const { return scores.anchors * scores.classes; }
  MIXPL_DEVICE int64_t wanted(int) const { return most; }
  MIXPL_DEVICE PairPacks packs(int image) const { return {scores, image}; }
};

struct EmitView {
  DenseScores scores;
  SelectionView selected;
  const CenterBox* boxes;
  const ImageSize* sizes;
  CandidatesView out;

  MIXPL_DEVICE void operator()(int64_t slot) const {
    const int64_t image = slot / selected.most;
    if (slot % selected.most >= selected.counts[image]) return;
    const uint64_t item = selected.items[slot];
    const int64_t pair = index_of(item), query = image * scores.anchors + pair / scores.classes;
    const Box box = box_from_center(boxes[query], sizes[image]);
    if (has_nan(box)) return;  // clipping would hide it
    const Box clipped = clip_box(box, sizes[image]);
    if (!has_area(clipped)) return;
    const float logit = scores.logits[image * scores.anchors * scores.classes + pair];
    out.add(image, {item, static_cast<uint64_t>(pair), clipped, sigmoid_of(logit),
                    static_cast<int32_t>(pair % scores.classes)});
  }
};

}  // namespace

void best_tokens(const Tensor& logits, int64_t count, int64_t by, Tensor& rows) {
  const int64_t images = logits.size(0), tokens = logits.size(1), classes = logits.size(2);
  const Device device = logits.device();
  // One pass over the logits: the selection looks at the keys several times.
  const Tensor keys = Tensor::empty({images * tokens}, DType::i32, device);
  uint32_t* key = reinterpret_cast<uint32_t*>(keys.data<int32_t>());
  if (by < 0 && classes > 1)
    largest_keys(logits, key);
  else
    for_each(images * tokens,
             LogitKeys{Numbers::of(logits), classes, std::max<int64_t>(by, 0), key});
  const Selection chosen =
      top_items_of(TokensView{key, tokens, count}, images, tokens, count, device);
  Candidates candidates(images, count, device);
  candidates.counts = chosen.counts;
  for_each(images * count, TokenCandidates{SelectionView(chosen).items, candidates.view().items});
  const Ranked ranked = rank_candidates(candidates);
  for_each(images * count,
           TokenRows{ranked.origin.data<int32_t>(), tokens, count, rows.data<int32_t>()});
}

void denoising_queries(const Truth& truth, const Tensor& sizes, int64_t classes,
                       const DenoisingOptions& options, const Philox& random,
                       DenoisingQueries& out) {
  for_each(out.labels.numel(), DenoisingView(truth, sizes, classes, options, random, out));
}

void denoising_mask(const DenoisingQueries& denoising, Tensor& mask) {
  for_all_values<16>(int64_t{index_of(mask.numel())},
                     MaskView{mask.data<uint8_t>(), Divider(mask.size(1)),
                              Divider(denoising.group_size), index_of(denoising.count())});
}

PendingDetections detect_queries(const Tensor& logits, const Tensor& boxes, const Tensor& sizes,
                                 int64_t most) {
  const int64_t images = logits.size(0), queries = logits.size(1), classes = logits.size(2);
  const Device device = logits.device();
  // No threshold, and no score below which a pair is of no interest.
  const DenseScores scores{Numbers::of(logits), {}, queries,  classes,
                           ScoreRule::classes,  -1, -INFINITY};
  const Selection chosen =
      top_items_of(PairsView{scores, most}, images, queries * classes, most, device);
  const Candidates candidates(images, most, device);
  for_each(images * most, EmitView{scores, SelectionView(chosen),
                                   reinterpret_cast<const CenterBox*>(boxes.data<float>()),
                                   sizes_in(sizes), candidates.view()});
  return download(rank_candidates(candidates));
}

}  // namespace mixpl::cuda
