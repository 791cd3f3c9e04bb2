#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/parallel.h"
#include "detect/linear_assignment.h"
#include "detect/set_matching.h"
#include "detect/set_matching_costs.h"

namespace mixpl::cpu {
namespace {

// Numbers of one image's queries, number after number: loops over queries vectorise.
class QueryBoxes {
 public:
  QueryBoxes(const MatchView& view, int64_t layer, int64_t image)
      : stride_(view.queries), values_(8 * view.queries) {
    const CentredBox* boxes = view.layers[layer].boxes + image * view.queries;
    for (int64_t q = 0; q < view.queries; ++q) {
      const ComparedBox b = compared_query(boxes[q], view.sizes[image], view.options.xyxy_l1);
      const float numbers[8] = {b.pixels.x1, b.pixels.y1, b.pixels.x2, b.pixels.y2,
                                b.a,         b.b,         b.c,         b.d};
      for (int k = 0; k < 8; ++k) values_[k * stride_ + q] = numbers[k];
    }
  }
  const float* operator[](int k) const { return values_.data() + k * stride_; }

 private:
  int64_t stride_;
  std::vector<float> values_;
};

// Of all queries of an image for one object; `costs` has their logits of its class.
void price(const QueryBoxes& boxes, const ComparedBox& object, const SetMatchingOptions& options,
           int64_t queries, float* costs) {
  const float *x1 = boxes[0], *y1 = boxes[1], *x2 = boxes[2], *y2 = boxes[3];
  const float *a = boxes[4], *b = boxes[5], *c = boxes[6], *d = boxes[7];
  for (int64_t q = 0; q < queries; ++q)
    costs[q] = pair_cost(costs[q], {{x1[q], y1[q], x2[q], y2[q]}, a[q], b[q], c[q], d[q]}, object,
                         options);
}

// take(g, costs of its queries) for each object of an image.
template <typename Take>
void for_each_object(const MatchView& view, int64_t layer, int64_t image, Take take) {
  const QueryBoxes boxes(view, layer, image);
  std::vector<float> costs(view.queries);
  const int64_t first = image * view.queries * view.classes;
  for (int32_t g = 0; g < view.truth.count(image); ++g) {
    const int32_t object = view.truth.begin(image) + g;
    dispatch_floating(view.logits, [&](auto tag) {
      const auto* logits = static_cast<const decltype(tag)*>(view.layers[layer].logits) + first +
                           view.truth.labels[object];
      for (int64_t q = 0; q < view.queries; ++q) costs[q] = float(logits[q * view.classes]);
    });
    price(boxes, compared_object(view.truth.boxes[object], view.sizes[image], view.options.xyxy_l1),
          view.options, view.queries, costs.data());
    take(g, costs.data());
  }
}

constexpr int kLanes = 4;
typedef double f64x4 __attribute__((vector_size(32)));
typedef int64_t i64x4 __attribute__((vector_size(32)));
typedef float f32x4 __attribute__((vector_size(16)));
typedef int32_t i32x4 __attribute__((vector_size(16)));

template <typename V, typename T>
V load(const T* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// Looks at all columns from a row: Assignment::reach for kLanes columns at a time, and the best.
// The number of columns is a multiple of kLanes; those added to make it one cost infinity.
template <bool kFirst>
Reach scan(const Assignment& state, int32_t row, double from, const float* costs) {
  const f64x4 base = f64x4{} + from, never = f64x4{} + INFINITY;
  const i64x4 owned = i64x4{} + int64_t{Reach::kOwned};
  f64x4 best = never;
  i64x4 best_rank = i64x4{} + int64_t{INT32_MAX}, index = {0, 1, 2, 3};
  for (int32_t j = 0; j < state.columns; j += kLanes, index += kLanes) {
    const f64x4 cost = __builtin_convertvector(load<f32x4>(costs + j), f64x4);
    f64x4 length = path_length(base, cost, load<f64x4>(state.v + j));
    i32x4 path = i32x4{} + row;
    if constexpr (!kFirst) {
      const f64x4 before = load<f64x4>(state.open + j);
      const i64x4 nearer = (length < before) & (before < never);
      length = nearer ? length : before;
      path = __builtin_convertvector(nearer, i32x4) ? path : load<i32x4>(state.path + j);
    }
    std::memcpy(state.open + j, &length, sizeof length);
    std::memcpy(state.path + j, &path, sizeof path);
    const i64x4 owner = __builtin_convertvector(load<i32x4>(state.owner + j), i64x4);
    const i64x4 rank = index + (owner >= 0 ? owned : i64x4{});
    const i64x4 wins = (length < best) | ((length == best) & (rank < best_rank));
    best = wins ? length : best;
    best_rank = wins ? rank : best_rank;
  }
  Reach reach = Reach::never();
  for (int k = 0; k < kLanes; ++k) {
    const Reach lane{best[k], static_cast<int32_t>(best_rank[k])};
    if (lane.before(reach)) reach = lane;
  }
  return reach;
}

void add_row(const Assignment& state, int32_t row, const float* costs) {
  int32_t closed = 0;
  Reach best = scan<true>(state, row, 0, costs + int64_t{row} * state.columns);
  while (best.owned()) {
    const int32_t next = state.owner[best.column()];
    state.close(closed++, best);
    best = scan<false>(state, next, best.length - state.u[next],
                       costs + int64_t{next} * state.columns);
  }
  for (int32_t k = 0; k < closed; ++k) state.shift(k, best.length);
  state.flip(row, best);
}

void match_image(const MatchView& view, int64_t layer, int64_t image) {
  const bool by_object = view.objects_are_rows(image);
  const int64_t objects = view.truth.count(image);
  const int64_t rows = by_object ? objects : view.queries;
  const int64_t columns = ((by_object ? view.queries : objects) + kLanes - 1) & -int64_t{kLanes};
  std::vector<double> memory(rows ? Assignment::bytes(rows, columns) / sizeof(double) : 0);
  const Assignment state(memory.data(), static_cast<int32_t>(rows), static_cast<int32_t>(columns));
  if (rows) {
    std::vector<float> costs(rows * columns, std::numeric_limits<float>::infinity());
    for_each_object(view, layer, image, [&](int32_t g, const float* own) {
      if (by_object)
        std::copy(own, own + view.queries, costs.data() + g * columns);
      else
        for (int64_t q = 0; q < rows; ++q) costs[q * columns + g] = own[q];
    });
    for (int32_t i = 0; i < state.rows; ++i) state.clear_row(i);
    for (int32_t j = 0; j < state.columns; ++j) state.clear_column(j);
    for (int32_t i = 0; i < state.rows; ++i) add_row(state, i, costs.data());
  }
  for (int64_t q = 0; q < view.queries; ++q)
    view.set_target(view.layers[layer], image, q,
                    !rows       ? -1
                    : by_object ? state.owner[q]
                                : state.own[q]);
}

}  // namespace

void query_costs(const MatchView& view, float* costs) {
  parallel_for(view.images, int64_t{1}, [&](int64_t image) {
    for_each_object(view, 0, image, [&](int32_t g, const float* own) {
      std::copy(own, own + view.queries, costs + (view.truth.begin(image) + g) * view.queries);
    });
  });
}

void match_queries(const MatchView& view) {
  parallel_for(view.num_layers * view.images, int64_t{1},
               [&](int64_t i) { match_image(view, i / view.images, i % view.images); });
}

}  // namespace mixpl::cpu
