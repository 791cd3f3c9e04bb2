#include "ops/attention/attention_tiles_cuda.h"

namespace mixpl::cuda {
namespace {

using namespace attention;

// A block: kRows queries of a head. Sums are taken around the largest score so far, and what was
// summed around another is scaled.
template <class P>
MIXPL_KERNEL __launch_bounds__(P::kThreads)
    attention_forward_kernel(ScoreTerms terms, int64_t tiles, Operand<const typename P::T> q,
                             Operand<const typename P::T> k, Operand<const typename P::T> v,
                             Operand<typename P::T> out, float* __restrict__ log_sums) {
  using T = typename P::T;
  using Product = typename P::Product;
  using Scores = typename P::Scores;
  MIXPL_DYNAMIC_SHARED(T, shared);
  T* const queries = shared;
  T* const right = queries + P::kLeft;
  constexpr int kStage = P::kRight + P::kRightValues;
  float* const scratch = reinterpret_cast<float*>(right + P::kStages * kStage);

  const Place place(tiles, terms.heads);
  const int64_t first = place.tile * P::kRows;
  const T* keys_of_head = k.head(place.image, place.head);
  const T* values_of_head = v.head(place.image, place.head);
  const ScoreTerms own = terms.at(place.image, place.head);
  const float exponents = own.exponents();
  const auto load = [&](int key) {
    T* const stage = right + key / P::kColumns % P::kStages * kStage;
    load_tile<P::kColumns, P::kD, P::kThreads>(stage, k, keys_of_head, key);
    load_tile<P::kColumns, P::kDv, P::kThreads>(stage + P::kRight, v, values_of_head, key);
  };

  load_tile<P::kRows, P::kD, P::kThreads>(queries, q, q.head(place.image, place.head), first);
  if constexpr (P::kStages > 1) {
    load(0);
    cp_async_commit();
  }
  typename Product::template Sums<P::kDv> sums;
  float most[Scores::kOwnRows], total[Scores::kOwnRows];
#pragma unroll
  for (int i = 0; i < Scores::kOwnRows; ++i) most[i] = kLeastScore, total[i] = 0;

  for (int key = 0; key < terms.keys; key += P::kColumns) {
    const int next = P::kStages > 1 ? key + P::kColumns : key;
    if (next < terms.keys) load(next);
    cp_async_commit();
    cp_async_wait<P::kStages - 1>();
    sync_block();
    const T* const stage = right + key / P::kColumns % P::kStages * kStage;

    Scores scores;
    Product::template add_scores<P::kD>(scores, queries, stage);
    own.apply<false>(scores, static_cast<int>(first), key);
#pragma unroll
    for (int i = 0; i < Scores::kOwnRows; ++i) {
      float largest = most[i];
#pragma unroll
      for (int j = 0; j < Scores::kOwnColumns; ++j) {
        const float s = scores.at(i, j);
        largest = s > largest ? s : largest;
      }
      largest = row_reduce<Scores::kSharers>(largest, Max());
      const float factor = Product::exp2((most[i] - largest) * exponents);
      const float at_largest = largest * exponents;
      most[i] = largest;
      total[i] *= factor;
#pragma unroll
      for (int j = 0; j < Scores::kOwnColumns; ++j) {
        float& s = scores.at(i, j);
        s = Product::power(s, largest, exponents, at_largest);
        total[i] += s;
      }
#pragma unroll
      for (int j = 0; j < sums.kOwnColumns; ++j) sums.at(i, j) *= factor;
    }
    Product::add_weighted(sums, scores, stage + P::kRight, scratch);
    sync_block();  // before the next tile is written where this one was
  }

#pragma unroll
  for (int i = 0; i < Scores::kOwnRows; ++i) {
    const float all = row_reduce<Scores::kSharers>(total[i], Add());
    const bool blind = all == 0;  // no key is seen: zeros, and no gradient
    const int64_t query = first + Scores::row(i);
    if (query < terms.queries && lane() % Scores::kSharers == 0)
      log_sums[(place.image * terms.heads + place.head) * terms.queries + query] =
          blind ? std::numeric_limits<float>::infinity() : most[i] * exponents + log2f(all);
    const float factor = blind ? 0.0f : 1 / all;
#pragma unroll
    for (int j = 0; j < sums.kOwnColumns; ++j) sums.at(i, j) *= factor;
  }
  store_rows<Product>(sums, queries, out, out.head(place.image, place.head), first);
}

}  // namespace

void attention_forward(const AttentionCall& c, Tensor& out, Tensor& log_sums) {
  dispatch_floating(out.dtype(), [&](auto tag) {
    using T = decltype(tag);
    with_plan<T>(c, [&](auto plan) {
      using P = decltype(plan);
      const int64_t tiles = tiles_of(c.queries, P::kRows);
      constexpr size_t kShared =
          (P::kLeft + P::kStages * (P::kRight + P::kRightValues)) * sizeof(T) +
          P::Product::kScratch * sizeof(float);
      launch(attention_forward_kernel<P>, index_of(c.images * c.heads * tiles), P::kThreads,
             kShared, ScoreTerms(c), tiles, operand_of<const T>(c.q, c.depth),
             operand_of<const T>(c.k, c.depth), operand_of<const T>(c.v, c.value_depth),
             operand_of<T>({out, 0}, c.value_depth), log_sums.data<float>());
    });
  });
}

}  // namespace mixpl::cuda
