// Gradients in three passes that compute the probabilities again, each for what its blocks own: no
// sum has two writers. With p = exp(score - log_sum), dp = dout v^T and the row sums of p dp, which
// are those of dout out:  ds = p (dp - sum);  dq = scale ds k, dk = scale ds^T q, dv = p^T dout,
// and the bias has the sum of ds.
#include "ops/attention/attention_tiles_cuda.h"

namespace mixpl::cuda {
namespace {

using namespace attention;

// What all passes read.
template <typename T>
struct Inputs {
  ScoreTerms terms;
  Operand<const T> q, k, v, dout;
  const float *log_sums, *row_sums;  // [N, M, Q]

  MIXPL_DEVICE int64_t row_of(int64_t image, int64_t head) const {
    return (image * terms.heads + head) * terms.queries;
  }
};

/// Infinity for a query that does not exist: its probabilities are zeros.
MIXPL_DEVICE float log_sum_at(const float* log_sums, int query, int queries) {
  return query < queries ? load_read_only(log_sums + query)
                         : std::numeric_limits<float>::infinity();
}
MIXPL_DEVICE float row_sum_at(const float* row_sums, int query, int queries) {
  return query < queries ? load_read_only(row_sums + query) : 0.0f;
}

constexpr int kRowSumSharers = 4;

// Four lanes a row of a head: sum of dout out.
template <int N, typename T>
struct RowSums {
  const T *dout, *out;
  int64_t queries, heads, packs;  // packs of N in a head
  float* sums;                    // [N, M, Q]

  MIXPL_DEVICE void operator()(int64_t i, int64_t rows) const {
    const int64_t item = i / kRowSumSharers;  // of images, queries and heads
    float sum = 0;
    if (item < rows)
      for (int64_t p = i % kRowSumSharers; p < packs; p += kRowSumSharers) {
        const auto a = load_vec<T, N>(dout + (item * packs + p) * N);
        const auto b = load_vec<T, N>(out + (item * packs + p) * N);
#pragma unroll
        for (int n = 0; n < N; ++n) sum = fmaf(float(a[n]), float(b[n]), sum);
      }
    sum = row_reduce<kRowSumSharers>(sum, Add());
    if (item >= rows || i % kRowSumSharers) return;
    const int64_t head = item % heads, query = item / heads % queries;
    sums[(item / heads / queries * heads + head) * queries + query] = sum;
  }
};

template <typename F>
MIXPL_KERNEL __launch_bounds__(256) row_sums_kernel(int64_t rows, F f) {
  f(thread_index(), rows);
}

template <typename T>
void sum_rows(const AttentionCall& c, const Tensor& dout, const Tensor& out, const Tensor& sums) {
  const int64_t rows = c.images * c.queries * c.heads;
  const int64_t blocks = index_of((rows * kRowSumSharers + 255) / 256);
  with_packs<T>(c.value_depth, [&](auto pack) {
    constexpr int N = decltype(pack)::value;
    using F = RowSums<N, T>;
    launch(row_sums_kernel<F>, blocks, 256, 0, rows,
           F{dout.data<T>(), out.data<T>(), c.queries, c.heads, c.value_depth / N,
             sums.data<float>()});
  });
}

/// Scores of a block of queries and a tile of keys become the gradient of these, by way of dp.
template <class P>
MIXPL_DEVICE void score_gradient(const ScoreTerms& own, float exponents, int first_query, int key,
                                 const typename P::T* queries, const typename P::T* dout,
                                 const typename P::T* keys, const typename P::T* values,
                                 const float* log_sums, const float* row_sums,
                                 typename P::Scores& scores) {
  using Product = typename P::Product;
  Product::template add_scores<P::kD>(scores, queries, keys);
  own.apply<false>(scores, first_query, key);
  typename P::Scores dp;
  Product::template add_scores<P::kDv>(dp, dout, values);
#pragma unroll
  for (int i = 0; i < P::Scores::kOwnRows; ++i)
#pragma unroll
    for (int j = 0; j < P::Scores::kOwnColumns; ++j) {
      float& s = scores.at(i, j);
      s = Product::exp2(fmaf(s, exponents, -log_sums[i])) * (dp.at(i, j) - row_sums[i]);
    }
}

/// A block: kRows queries of a head.
template <class P>
MIXPL_KERNEL __launch_bounds__(P::kThreads)
    attention_dq_kernel(Inputs<typename P::T> in, int64_t tiles, Operand<typename P::T> dq) {
  using T = typename P::T;
  using Product = typename P::Product;
  using Scores = typename P::Scores;
  MIXPL_DYNAMIC_SHARED(T, shared);
  T *const queries = shared, *const douts = queries + P::kLeft;
  T* const right = douts + P::kLeftValues;
  constexpr int kStage = P::kRight + P::kRightValues;
  float* const scratch = reinterpret_cast<float*>(right + P::kStages * kStage);

  const Place place(tiles, in.terms.heads);
  const int first = static_cast<int>(place.tile) * P::kRows;
  const T* keys_of_head = in.k.head(place.image, place.head);
  const T* values_of_head = in.v.head(place.image, place.head);
  const ScoreTerms own = in.terms.at(place.image, place.head);
  const float exponents = own.exponents();
  const auto load = [&](int key) {
    T* const stage = right + key / P::kColumns % P::kStages * kStage;
    load_tile<P::kColumns, P::kD, P::kThreads>(stage, in.k, keys_of_head, key);
    load_tile<P::kColumns, P::kDv, P::kThreads>(stage + P::kRight, in.v, values_of_head, key);
  };

  load_tile<P::kRows, P::kD, P::kThreads>(queries, in.q, in.q.head(place.image, place.head), first);
  load_tile<P::kRows, P::kDv, P::kThreads>(douts, in.dout, in.dout.head(place.image, place.head),
                                           first);
  if constexpr (P::kStages > 1) {
    load(0);
    cp_async_commit();
  }
  float log_sums[Scores::kOwnRows], row_sums[Scores::kOwnRows];
  const int64_t row = in.row_of(place.image, place.head);
#pragma unroll
  for (int i = 0; i < Scores::kOwnRows; ++i) {
    log_sums[i] = log_sum_at(in.log_sums + row, first + Scores::row(i), own.queries);
    row_sums[i] = row_sum_at(in.row_sums + row, first + Scores::row(i), own.queries);
  }
  typename Product::template Sums<P::kD> sums;
  for (int key = 0; key < own.keys; key += P::kColumns) {
    const int next = P::kStages > 1 ? key + P::kColumns : key;
    if (next < own.keys) load(next);
    cp_async_commit();
    cp_async_wait<P::kStages - 1>();
    sync_block();
    const T* const stage = right + key / P::kColumns % P::kStages * kStage;
    Scores scores;
    score_gradient<P>(own, exponents, first, key, queries, douts, stage, stage + P::kRight,
                      log_sums, row_sums, scores);
    Product::add_weighted(sums, scores, stage, scratch);
    sync_block();
  }
#pragma unroll
  for (int i = 0; i < sums.kOwnRows; ++i)
#pragma unroll
    for (int j = 0; j < sums.kOwnColumns; ++j) sums.at(i, j) *= own.scale;
  store_rows<Product>(sums, queries, dq, dq.head(place.image, place.head), first);
}

/// A block: kRows keys of a head. Scores are turned over: rows are keys.
template <class P>
MIXPL_KERNEL __launch_bounds__(P::kThreads)
    attention_dkv_kernel(Inputs<typename P::T> in, int64_t tiles, Operand<typename P::T> dk,
                         Operand<typename P::T> dv) {
  using T = typename P::T;
  using Product = typename P::Product;
  using Scores = typename P::Scores;
  MIXPL_DYNAMIC_SHARED(T, shared);
  T *const keys = shared, *const values = keys + P::kLeft;
  T* const right = values + P::kLeftValues;
  constexpr int kStage = P::kRight + P::kRightValues;
  float* const scratch = reinterpret_cast<float*>(right + P::kStages * kStage);
  float* const sums_of_rows = scratch + Product::kScratch;  // of a stage: log_sums, row_sums

  const Place place(tiles, in.terms.heads);
  const int first = static_cast<int>(place.tile) * P::kRows;
  const T* queries_of_head = in.q.head(place.image, place.head);
  const T* douts_of_head = in.dout.head(place.image, place.head);
  const int64_t row = in.row_of(place.image, place.head);
  const ScoreTerms own = in.terms.at(place.image, place.head);
  const float exponents = own.exponents();
  const auto load = [&](int query) {
    const int at = query / P::kColumns % P::kStages;
    T* const stage = right + at * kStage;
    load_tile<P::kColumns, P::kD, P::kThreads>(stage, in.q, queries_of_head, query);
    load_tile<P::kColumns, P::kDv, P::kThreads>(stage + P::kRight, in.dout, douts_of_head, query);
    float* const sums = sums_of_rows + at * 2 * P::kColumns;
    const int i = linear_thread();
    if (i < P::kColumns) {
      sums[i] = log_sum_at(in.log_sums + row, query + i, own.queries);
      sums[P::kColumns + i] = row_sum_at(in.row_sums + row, query + i, own.queries);
    }
  };

  load_tile<P::kRows, P::kD, P::kThreads>(keys, in.k, in.k.head(place.image, place.head), first);
  load_tile<P::kRows, P::kDv, P::kThreads>(values, in.v, in.v.head(place.image, place.head), first);
  if constexpr (P::kStages > 1) {
    load(0);
    cp_async_commit();
  }
  typename Product::template Sums<P::kD> key_sums;
  typename Product::template Sums<P::kDv> value_sums;
  for (int query = 0; query < own.queries; query += P::kColumns) {
    const int next = P::kStages > 1 ? query + P::kColumns : query;
    if (next < own.queries) load(next);
    cp_async_commit();
    cp_async_wait<P::kStages - 1>();
    sync_block();
    const int at = query / P::kColumns % P::kStages;
    const T* const stage = right + at * kStage;
    const float* const log_sums = sums_of_rows + at * 2 * P::kColumns;
    const float* const row_sums = log_sums + P::kColumns;

    Scores p;
    Product::template add_scores<P::kD>(p, keys, stage);
    own.apply<true>(p, first, query);
#pragma unroll
    for (int j = 0; j < Scores::kOwnColumns; ++j) {
      const float log_sum = log_sums[Scores::column(j)];
#pragma unroll
      for (int i = 0; i < Scores::kOwnRows; ++i)
        p.at(i, j) = Product::exp2(fmaf(p.at(i, j), exponents, -log_sum));
    }
    Product::add_weighted(value_sums, p, stage + P::kRight, scratch);
    Scores ds;
    Product::template add_scores<P::kDv>(ds, values, stage + P::kRight);
#pragma unroll
    for (int j = 0; j < Scores::kOwnColumns; ++j) {
      const float row_sum = row_sums[Scores::column(j)];
#pragma unroll
      for (int i = 0; i < Scores::kOwnRows; ++i) ds.at(i, j) = p.at(i, j) * (ds.at(i, j) - row_sum);
    }
    Product::add_weighted(key_sums, ds, stage, scratch);
    sync_block();
  }
#pragma unroll
  for (int i = 0; i < key_sums.kOwnRows; ++i)
#pragma unroll
    for (int j = 0; j < key_sums.kOwnColumns; ++j) key_sums.at(i, j) *= own.scale;
  if (dk.data) store_rows<Product>(key_sums, keys, dk, dk.head(place.image, place.head), first);
  if (dv.data) store_rows<Product>(value_sums, values, dv, dv.head(place.image, place.head), first);
}

/// A block: a tile of a bias's head, over a group of the images that share it, in order.
template <class P>
MIXPL_KERNEL __launch_bounds__(P::kThreads)
    attention_dbias_kernel(Inputs<typename P::T> in, int64_t query_tiles, int64_t key_tiles,
                           int64_t images, int64_t groups, float* __restrict__ dbias) {
  using T = typename P::T;
  using Scores = typename P::Scores;
  MIXPL_DYNAMIC_SHARED(T, shared);
  T *const queries = shared, *const douts = queries + P::kLeft;
  T *const keys = douts + P::kLeftValues, *const values = keys + P::kRight;

  const Place place(query_tiles * key_tiles, in.terms.heads);
  const int64_t head = place.head, biases = in.terms.biases;
  const int64_t bias = place.image % biases, group = place.image / biases;
  const int first = static_cast<int>(place.tile / key_tiles) * P::kRows;
  const int key = static_cast<int>(place.tile % key_tiles) * P::kColumns;
  const int64_t per_bias = images / biases;
  Scores sums;
  for (int64_t i = per_bias * group / groups; i < per_bias * (group + 1) / groups; ++i) {
    const int64_t image = i * biases + bias, row = in.row_of(image, head);
    load_tile<P::kRows, P::kD, P::kThreads>(queries, in.q, in.q.head(image, head), first);
    load_tile<P::kRows, P::kDv, P::kThreads>(douts, in.dout, in.dout.head(image, head), first);
    load_tile<P::kColumns, P::kD, P::kThreads>(keys, in.k, in.k.head(image, head), key);
    load_tile<P::kColumns, P::kDv, P::kThreads>(values, in.v, in.v.head(image, head), key);
    cp_async_commit();
    const ScoreTerms own = in.terms.at(image, head);
    float log_sums[Scores::kOwnRows], row_sums[Scores::kOwnRows];
#pragma unroll
    for (int r = 0; r < Scores::kOwnRows; ++r) {
      log_sums[r] = log_sum_at(in.log_sums + row, first + Scores::row(r), own.queries);
      row_sums[r] = row_sum_at(in.row_sums + row, first + Scores::row(r), own.queries);
    }
    cp_async_wait<0>();
    sync_block();
    Scores scores;
    score_gradient<P>(own, own.exponents(), worked_out_here(first), worked_out_here(key), queries,
                      douts, keys, values, log_sums, row_sums, scores);
#pragma unroll
    for (int r = 0; r < Scores::kOwnRows; ++r)
#pragma unroll
      for (int j = 0; j < Scores::kOwnColumns; ++j) sums.at(r, j) += scores.at(r, j);
    sync_block();
  }
  dbias += (place.image * in.terms.heads + head) * in.terms.queries * in.terms.keys;
#pragma unroll
  for (int r = 0; r < Scores::kOwnRows; ++r)
#pragma unroll
    for (int j = 0; j < Scores::kOwnColumns; ++j) {
      const int query = first + Scores::row(r), column = key + Scores::column(j);
      if (query < in.terms.queries && column < in.terms.keys)
        dbias[int64_t{query} * in.terms.keys + column] = sums.at(r, j);
    }
}

template <class P>
constexpr size_t shared_bytes() {
  constexpr int kStage = P::kRight + P::kRightValues;
  return (P::kLeft + P::kLeftValues + P::kStages * kStage) * sizeof(typename P::T) +
         P::Product::kScratch * sizeof(float);
}

struct AddGroups {
  const float* parts;
  int64_t groups, n;
  float* to;
  MIXPL_DEVICE void operator()(int64_t i) const {
    float sum = parts[i];
    for (int64_t g = 1; g < groups; ++g) sum += parts[g * n + i];
    to[i] = sum;
  }
};

template <class P>
void bias_gradient(const AttentionCall& c, const Inputs<typename P::T>& in, Tensor& dbias) {
  constexpr int64_t kBlocks = 528;  // four a multiprocessor of an H100, whatever the card
  const int64_t query_tiles = tiles_of(c.queries, P::kRows);
  const int64_t key_tiles = tiles_of(c.keys, P::kColumns), biases = c.bias.size(0);
  const int64_t blocks = biases * c.heads * query_tiles * key_tiles;
  const int64_t groups = std::min(c.images / biases, (kBlocks + blocks - 1) / blocks);
  const Tensor parts =
      groups == 1 ? dbias : Tensor::empty({groups, dbias.numel()}, DType::f32, dbias.device());
  launch(attention_dbias_kernel<P>, index_of(groups * blocks), P::kThreads, shared_bytes<P>(), in,
         query_tiles, key_tiles, c.images, groups, parts.data<float>());
  if (groups > 1)
    for_each(dbias.numel(),
             AddGroups{parts.data<float>(), groups, dbias.numel(), dbias.data<float>()});
}

}  // namespace

void attention_backward(const AttentionCall& c, const Tensor& dout, const Tensor& out,
                        const Tensor& log_sums, AttentionGradients& g) {
  const Tensor row_sums = Tensor::empty_like(log_sums);
  dispatch_floating(dout.dtype(), [&](auto tag) {
    using T = decltype(tag);
    sum_rows<T>(c, dout, out, row_sums);
    const Inputs<T> in{ScoreTerms(c),
                       operand_of<const T>(c.q, c.depth),
                       operand_of<const T>(c.k, c.depth),
                       operand_of<const T>(c.v, c.value_depth),
                       operand_of<const T>({dout, 0}, c.value_depth),
                       log_sums.data<float>(),
                       row_sums.data<float>()};
    with_plan<T>(c, [&](auto plan) {
      using P = decltype(plan);
      const int64_t units = c.images * c.heads;
      if (g.dq.defined()) {
        const int64_t tiles = tiles_of(c.queries, P::kRows);
        launch(attention_dq_kernel<P>, index_of(units * tiles), P::kThreads, shared_bytes<P>(), in,
               tiles, operand_of<T>(g.dq, c.depth));
      }
      if (g.dk.defined() || g.dv.defined()) {
        using K = Plan<T, P::kD, P::kDv, 32>;  // two sums and two scores fill the registers
        const int64_t tiles = tiles_of(c.keys, K::kRows);
        constexpr size_t kSumsOfRows = K::kStages * 2 * K::kColumns * sizeof(float);
        launch(attention_dkv_kernel<K>, index_of(units * tiles), K::kThreads,
               shared_bytes<K>() + kSumsOfRows, in, tiles, operand_of<T>(g.dk, c.depth),
               operand_of<T>(g.dv, c.value_depth));
      }
      if (g.dbias.defined()) bias_gradient<Plan<T, P::kD, P::kDv, 32>>(c, in, g.dbias);
    });
  });
}

}  // namespace mixpl::cuda
