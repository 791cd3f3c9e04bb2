// Gradients by blocks of queries, whose probabilities are computed again.
//
// With p = exp(s - log_sum), dp = dout v^T:  ds = p (dp - sum over keys of p dp) is the gradient of
// the scores and of the bias; dq = scale ds k, dk = scale ds^T q, dv = p^T dout.
#pragma once

#include "ops/attention/simd/forward.h"

namespace mixpl::cpu::attention {
inline namespace MIXPL_SIMD_NAME {

/// How the work is cut. It follows from the sizes alone, as sums over images and queries depend on
/// it: an item is one head of a group of images and a part of their queries.
struct Cut {
  int64_t biases;  // that images take in turn
  int64_t groups;  // of the images of one bias
  int64_t parts;   // of the queries
  int64_t items;

  explicit Cut(const AttentionCall& c, bool dbias) {
    constexpr int64_t kItems = 32, kQueries = 128;  // enough to share, and worth packing keys for
    biases = dbias ? c.bias.size(0) : 1;
    const int64_t units = c.images * c.heads;
    parts = std::min((kItems + units - 1) / units, (c.queries + kQueries - 1) / kQueries);
    const int64_t shared = biases * c.heads * parts;
    groups = dbias ? std::min(c.images / biases, (kItems + shared - 1) / shared) : c.images;
    items = biases * groups * c.heads * parts;
  }
};

struct BackwardMemory {
  Floats keys, values, plain_keys, queries, dout, scores, dscores, dqueries, dkeys, dvalues;
  explicit BackwardMemory(const AttentionCall& c)
      : keys(padded(c.keys) * c.depth),
        values(padded(c.keys) * c.value_depth),
        plain_keys(c.keys * padded(c.depth)),
        queries(kBlock * padded(c.depth)),
        dout(kBlock * padded(c.value_depth)),
        scores(kBlock * score_pitch(c.keys)),
        dscores(kBlock * score_pitch(c.keys)),
        dqueries(kBlock * padded(c.depth)),
        dkeys(c.keys * padded(c.depth)),
        dvalues(c.keys * padded(c.value_depth)) {}
};

/// Scores become probabilities, and the gradient of these that of the scores; the sum of both's
/// product is taken on the way.
MIXPL_SIMD inline void row_gradient(float* scores, float* dscores, const RowTerms& terms,
                                    int64_t keys, float log_sum) {
  const Vector origin = splat(log_sum);
  Vector sums = splat(0);
  for (int64_t j = 0; j < keys; j += kLanes) {
    const Lanes lanes = lanes_of(keys - j);
    const Vector p = exp(sub(score(scores, terms, j, lanes), origin));
    store(scores + j, p);
    sums = fmadd(p, load(dscores + j), sums);
  }
  const Vector mean = splat(sum(sums));
  for (int64_t j = 0; j < keys; j += kLanes)
    store(dscores + j, mul(load(scores + j), sub(load(dscores + j), mean)));
}

MIXPL_SIMD inline void add_row(const float* from, int64_t count, bool first, float* to) {
  for (int64_t j = 0; j < count; j += kLanes) {
    const Lanes lanes = lanes_of(count - j);
    const Vector v = load(from + j, lanes);
    store(to + j, lanes, first ? v : add(load(to + j, lanes), v));
  }
}

/// Where the gradients of one image's head go; null: not wanted.
template <typename T>
struct HeadGradients {
  T* dq;         // of the image's first query
  float* dkeys;  // sums [K][padded(D)], times the scale
  float* dvalues;
  float* dbias;  // [Q, K]
  bool first_of_bias;
};

template <typename T>
MIXPL_SIMD void backward_block(const AttentionCall& c, const T* dout, const float* log_sums,
                               int64_t image, int64_t head, int64_t first, int64_t rows,
                               bool first_block, const BackwardMemory& m,
                               const HeadGradients<T>& to, int64_t dq_pitch) {
  const int64_t pitch = score_pitch(c.keys);
  const int64_t width = padded(c.depth), value_width = padded(c.value_depth);
  const int64_t dout_pitch = c.heads * c.value_depth;
  pack_rows(head_of<T>(c.q, image, c.queries, head, c.depth) + first * c.q.pitch(), c.q.pitch(),
            rows, c.depth, c.scale, m.queries);
  pack_rows(dout + (image * c.queries + first) * dout_pitch + head * c.value_depth, dout_pitch,
            rows, c.value_depth, 1, m.dout);
  multiply({.rows = rows,
            .columns = padded(c.keys),
            .depth = c.depth,
            .x = m.queries,
            .x_row = width,
            .x_step = 1,
            .w = m.keys,
            .w_panel = c.depth * kTileColumns,
            .w_step = 0,
            .y = m.scores,
            .y_row = pitch,
            .add = false});
  multiply({.rows = rows,
            .columns = padded(c.keys),
            .depth = c.value_depth,
            .x = m.dout,
            .x_row = value_width,
            .x_step = 1,
            .w = m.values,
            .w_panel = c.value_depth * kTileColumns,
            .w_step = 0,
            .y = m.dscores,
            .y_row = pitch,
            .add = false});
  for (int64_t i = 0; i < rows; ++i) {
    row_gradient(m.scores + i * pitch, m.dscores + i * pitch, terms_of(c, image, head, first + i),
                 c.keys, log_sums[(image * c.heads + head) * c.queries + first + i]);
    if (to.dbias)
      add_row(m.dscores + i * pitch, c.keys, to.first_of_bias, to.dbias + (first + i) * c.keys);
  }
  if (to.dvalues)
    multiply({.rows = c.keys,
              .columns = value_width,
              .depth = rows,
              .x = m.scores,
              .x_row = 1,
              .x_step = pitch,
              .w = m.dout,
              .w_panel = kTileColumns,
              .w_step = value_width,
              .y = to.dvalues,
              .y_row = value_width,
              .add = !first_block});
  if (to.dkeys)
    multiply({.rows = c.keys,
              .columns = width,
              .depth = rows,
              .x = m.dscores,
              .x_row = 1,
              .x_step = pitch,
              .w = m.queries,
              .w_panel = kTileColumns,
              .w_step = width,
              .y = to.dkeys,
              .y_row = width,
              .add = !first_block});
  if (to.dq) {
    multiply({.rows = rows,
              .columns = width,
              .depth = c.keys,
              .x = m.dscores,
              .x_row = pitch,
              .x_step = 1,
              .w = m.plain_keys,
              .w_panel = kTileColumns,
              .w_step = width,
              .y = m.dqueries,
              .y_row = width,
              .add = false});
    for (int64_t i = 0; i < rows; ++i)
      unpack_row(m.dqueries + i * width, c.scale, c.depth, to.dq + (first + i) * dq_pitch);
  }
}

/// Sums of the parts of the queries [N, M, parts, K, padded(D) + padded(Dv)], where there are
/// several, and of groups of images [groups, B, M, Q, K].
struct Partials {
  Tensor keys, dbias;
};

template <typename T>
MIXPL_SIMD void backward_items(const AttentionCall& c, const Cut& cut, int64_t begin, int64_t end,
                               const T* dout, const float* log_sums, const Partials& partials,
                               const AttentionGradients& g) {
  const BackwardMemory m(c);
  const int64_t blocks = (c.queries + kBlock - 1) / kBlock, images = c.images / cut.biases;
  const int64_t width = padded(c.depth), value_width = padded(c.value_depth);
  for (int64_t item = begin; item < end; ++item) {
    // Items: groups, biases, heads, parts.
    const int64_t part = item % cut.parts, head = item / cut.parts % c.heads;
    const int64_t bias = item / (cut.parts * c.heads) % cut.biases;
    const int64_t group = item / (cut.parts * c.heads * cut.biases);
    const int64_t first = images * group / cut.groups, last = images * (group + 1) / cut.groups;
    for (int64_t i = first; i < last; ++i) {
      const int64_t image = i * cut.biases + bias;
      pack_transposed(head_of<T>(c.k, image, c.keys, head, c.depth), c.k.pitch(), c.keys, c.depth,
                      m.keys);
      pack_transposed(head_of<T>(c.v, image, c.keys, head, c.value_depth), c.v.pitch(), c.keys,
                      c.value_depth, m.values);
      HeadGradients<T> to{};
      if (g.dq.defined()) {
        pack_rows(head_of<T>(c.k, image, c.keys, head, c.depth), c.k.pitch(), c.keys, c.depth, 1,
                  m.plain_keys);
        to.dq = head_of<T>(g.dq, image, c.queries, head, c.depth);
      }
      if (cut.parts > 1) {
        float* sums = partials.keys.data<float>() + ((image * c.heads + head) * cut.parts + part) *
                                                        c.keys * (width + value_width);
        to.dkeys = sums, to.dvalues = sums + c.keys * width;
      } else {
        to.dkeys = m.dkeys, to.dvalues = m.dvalues;
      }
      if (!g.dk.defined()) to.dkeys = nullptr;
      if (!g.dv.defined()) to.dvalues = nullptr;
      if (partials.dbias.defined()) {
        to.dbias = partials.dbias.data<float>() +
                   ((group * cut.biases + bias) * c.heads + head) * c.queries * c.keys;
        to.first_of_bias = i == first;
      }
      const int64_t from = blocks * part / cut.parts, until = blocks * (part + 1) / cut.parts;
      for (int64_t b = from; b < until; ++b)
        backward_block(c, dout, log_sums, image, head, b * kBlock,
                       std::min(kBlock, c.queries - b * kBlock), b == from, m, to,
                       g.dq.defined() ? g.dq.pitch() : 0);
      if (cut.parts > 1) continue;
      for (int64_t key = 0; key < c.keys; ++key) {
        if (to.dkeys)
          unpack_row(to.dkeys + key * width, 1, c.depth,
                     head_of<T>(g.dk, image, c.keys, head, c.depth) + key * g.dk.pitch());
        if (to.dvalues)
          unpack_row(to.dvalues + key * value_width, 1, c.value_depth,
                     head_of<T>(g.dv, image, c.keys, head, c.value_depth) + key * g.dv.pitch());
      }
    }
  }
}

/// The row `row` of `parts` sums that lie `distance` apart, added in order into the first.
MIXPL_SIMD inline void add_parts(float* sums, int64_t parts, int64_t distance, int64_t count) {
  for (int64_t part = 1; part < parts; ++part) add_row(sums + part * distance, count, false, sums);
}

// What several parts of the queries found, for the heads [begin, end).
template <typename T>
MIXPL_SIMD void gather_parts(const AttentionCall& c, const Cut& cut, int64_t begin, int64_t end,
                             const Partials& partials, const AttentionGradients& g) {
  const int64_t width = padded(c.depth), value_width = padded(c.value_depth);
  const int64_t distance = c.keys * (width + value_width);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t image = unit / c.heads, head = unit % c.heads;
    float* keys = partials.keys.data<float>() + unit * cut.parts * distance;
    float* values = keys + c.keys * width;
    for (int64_t key = 0; key < c.keys; ++key) {
      if (g.dk.defined()) {
        add_parts(keys + key * width, cut.parts, distance, width);
        unpack_row(keys + key * width, 1, c.depth,
                   head_of<T>(g.dk, image, c.keys, head, c.depth) + key * g.dk.pitch());
      }
      if (g.dv.defined()) {
        add_parts(values + key * value_width, cut.parts, distance, value_width);
        unpack_row(values + key * value_width, 1, c.value_depth,
                   head_of<T>(g.dv, image, c.keys, head, c.value_depth) + key * g.dv.pitch());
      }
    }
  }
}

inline void backward(const AttentionCall& c, const Tensor& dout, const Tensor& log_sums,
                     AttentionGradients& g) {
  const Cut cut(c, g.dbias.defined());
  Partials partials;
  if (cut.parts > 1 && (g.dk.defined() || g.dv.defined()))
    partials.keys = Tensor::empty(
        {c.images, c.heads, cut.parts, c.keys, padded(c.depth) + padded(c.value_depth)},
        DType::f32);
  if (g.dbias.defined())
    partials.dbias =
        cut.groups == 1
            ? g.dbias
            : Tensor::empty({cut.groups, cut.biases, c.heads, c.queries, c.keys}, DType::f32);
  dispatch_floating(dout.dtype(), [&](auto tag) {
    using T = decltype(tag);
    parallel_chunks(cut.items, int64_t{1}, [&](int64_t begin, int64_t end) {
      backward_items<T>(c, cut, begin, end, dout.data<T>(), log_sums.data<float>(), partials, g);
    });
    if (partials.keys.defined())
      parallel_chunks(c.images * c.heads, int64_t{1}, [&](int64_t begin, int64_t end) {
        gather_parts<T>(c, cut, begin, end, partials, g);
      });
  });
  if (g.dbias.defined() && cut.groups > 1) {
    const int64_t rows = cut.biases * c.heads * c.queries;
    float *sums = partials.dbias.data<float>(), *to = g.dbias.data<float>();
    parallel_for(rows, int64_t{256}, [&](int64_t row) {
      float* own = sums + row * c.keys;
      add_parts(own, cut.groups, rows * c.keys, c.keys);
      std::copy_n(own, c.keys, to + row * c.keys);
    });
  }
}

}  // namespace MIXPL_SIMD_NAME
}  // namespace mixpl::cpu::attention
