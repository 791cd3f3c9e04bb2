// Attention by blocks of queries: the scores of a block are complete before its softmax.
#pragma once

#include "core/parallel.h"
#include "ops/attention/attention_kernels.h"
#include "ops/attention/simd/products.h"

namespace mixpl::cpu::attention {
inline namespace MIXPL_SIMD_NAME {

/// Queries whose scores lie in the second-level cache together.
constexpr int64_t kBlock = kLanes == 16 ? 28 : 24;

/// Rows of one image's head in an operand.
template <typename T>
MIXPL_SIMD inline T* head_of(const AttentionOperand& o, int64_t image, int64_t rows, int64_t head,
                             int64_t width) {
  return o.data<T>() + image * rows * o.pitch() + head * width;
}

/// What is added to a row of scores, and what is not seen of it; null: nothing.
struct RowTerms {
  const float* bias;
  const uint8_t* mask;
};

inline RowTerms terms_of(const AttentionCall& c, int64_t image, int64_t head, int64_t query) {
  RowTerms terms{nullptr, nullptr};
  if (c.bias.defined())
    terms.bias = c.bias.data<float>() +
                 (((image % c.bias.size(0)) * c.heads + head) * c.queries + query) * c.keys;
  if (c.mask.defined()) {
    const int64_t rows = c.mask.size(1);
    terms.mask = c.mask.data<uint8_t>() +
                 ((image % c.mask.size(0)) * rows + (rows == 1 ? 0 : query)) * c.keys;
  }
  return terms;
}

/// The score of `lanes` keys from `at` on, minus infinity where there is none.
MIXPL_SIMD inline Vector score(const float* scores, const RowTerms& terms, int64_t at,
                               Lanes lanes) {
  Vector s = load(scores + at);
  if (terms.bias) s = add(s, load(terms.bias + at, lanes));
  if (terms.mask) s = masked(s, terms.mask + at, lanes);
  return select(lanes, s, splat(-kInfinity));
}

struct Softmax {
  float largest, sum;

  float log_sum() const { return sum == 0 ? kInfinity : largest + std::log(sum); }
  float factor() const { return sum == 0 ? 0 : 1 / sum; }  // a row that sees nothing is zeros
};

/// Scores become exponentials of their distance to the largest.
MIXPL_SIMD inline Softmax exponentials(float* scores, const RowTerms& terms, int64_t keys) {
  const int64_t whole = keys / kLanes * kLanes;
  Vector most = splat(kLeastScore);
  if (terms.bias || terms.mask)
    for (int64_t j = 0; j < whole; j += kLanes) {
      const Vector s = score(scores, terms, j, lanes_of(kLanes));
      store(scores + j, s);
      most = max(s, most);
    }
  else
    for (int64_t j = 0; j < whole; j += kLanes) most = max(load(scores + j), most);
  if (whole < keys) {
    const Vector s = score(scores, terms, whole, lanes_of(keys - whole));
    store(scores + whole, s);
    most = max(s, most);
  }
  Softmax result{largest(most), 0};
  const Vector origin = splat(result.largest);
  Vector sums = splat(0);
  for (int64_t j = 0; j < keys; j += kLanes) {
    const Vector e = exp(sub(load(scores + j), origin));
    store(scores + j, e);
    sums = add(sums, e);
  }
  result.sum = sum(sums);
  return result;
}

// Working memory of the forward pass of one head.
struct ForwardMemory {
  Floats keys, values, queries, scores, out;
  explicit ForwardMemory(const AttentionCall& c)
      : keys(padded(c.keys) * c.depth),
        values(c.keys * padded(c.value_depth)),
        queries(kBlock * padded(c.depth)),
        scores(kBlock * score_pitch(c.keys)),
        out(kBlock * padded(c.value_depth)) {}
};

template <typename T>
MIXPL_SIMD void forward_block(const AttentionCall& c, int64_t image, int64_t head, int64_t first,
                              int64_t rows, const ForwardMemory& m, T* out, float* log_sums) {
  const int64_t pitch = score_pitch(c.keys), width = padded(c.value_depth);
  pack_rows(head_of<T>(c.q, image, c.queries, head, c.depth) + first * c.q.pitch(), c.q.pitch(),
            rows, c.depth, c.scale, m.queries);
  multiply({.rows = rows,
            .columns = padded(c.keys),
            .depth = c.depth,
            .x = m.queries,
            .x_row = padded(c.depth),
            .x_step = 1,
            .w = m.keys,
            .w_panel = c.depth * kTileColumns,
            .w_step = 0,
            .y = m.scores,
            .y_row = pitch,
            .add = false});
  float factors[kBlock];
  for (int64_t i = 0; i < rows; ++i) {
    const Softmax row =
        exponentials(m.scores + i * pitch, terms_of(c, image, head, first + i), c.keys);
    factors[i] = row.factor();
    log_sums[(image * c.heads + head) * c.queries + first + i] = row.log_sum();
  }
  multiply({.rows = rows,
            .columns = width,
            .depth = c.keys,
            .x = m.scores,
            .x_row = pitch,
            .x_step = 1,
            .w = m.values,
            .w_panel = kTileColumns,
            .w_step = width,
            .y = m.out,
            .y_row = width,
            .add = false});
  const int64_t out_pitch = c.heads * c.value_depth;
  T* to = out + (image * c.queries + first) * out_pitch + head * c.value_depth;
  for (int64_t i = 0; i < rows; ++i)
    unpack_row(m.out + i * width, factors[i], c.value_depth, to + i * out_pitch);
}

// Items [begin, end) of images by heads by parts of the queries.
template <typename T>
MIXPL_SIMD void forward_items(const AttentionCall& c, int64_t parts, int64_t begin, int64_t end,
                              T* out, float* log_sums) {
  const ForwardMemory m(c);
  int64_t packed = -1;
  const int64_t blocks = (c.queries + kBlock - 1) / kBlock;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t unit = item / parts, part = item % parts;
    const int64_t image = unit / c.heads, head = unit % c.heads;
    if (packed != unit) {
      pack_transposed(head_of<T>(c.k, image, c.keys, head, c.depth), c.k.pitch(), c.keys, c.depth,
                      m.keys);
      pack_rows(head_of<T>(c.v, image, c.keys, head, c.value_depth), c.v.pitch(), c.keys,
                c.value_depth, 1, m.values);
      packed = unit;
    }
    for (int64_t b = blocks * part / parts; b < blocks * (part + 1) / parts; ++b)
      forward_block(c, image, head, b * kBlock, std::min(kBlock, c.queries - b * kBlock), m, out,
                    log_sums);
  }
}

inline void forward(const AttentionCall& c, Tensor& out, Tensor& log_sums) {
  // Rows do not depend on one another: where heads are fewer than threads, these share their
  // queries, and each packs the keys for itself.
  const int64_t units = c.images * c.heads, blocks = (c.queries + kBlock - 1) / kBlock;
  const int64_t parts = std::min(blocks, units < 4 * num_threads() && num_threads() > 1
                                             ? (4 * num_threads() + units - 1) / units
                                             : int64_t{1});
  dispatch_floating(out.dtype(), [&](auto tag) {
    using T = decltype(tag);
    parallel_chunks(units * parts, int64_t{1}, [&](int64_t begin, int64_t end) {
      forward_items<T>(c, parts, begin, end, out.data<T>(), log_sums.data<float>());
    });
  });
}

}  // namespace MIXPL_SIMD_NAME
}  // namespace mixpl::cpu::attention
