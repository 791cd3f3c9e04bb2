#include <algorithm>
#include <cstring>
#include <vector>

#include "core/parallel.h"
#include "core/sines.h"
#include "detect/for_each_place.h"
#include "detect/token_grid.h"
#include "detect/token_grid_math.h"

namespace mixpl::cpu {
namespace {

// Of a number's pairs.
struct Frequencies {
  std::vector<float> of;
  float most = 0;

  Frequencies(int64_t pairs, float log2_temperature) : of(pairs) {
    for (int64_t m = 0; m < pairs; ++m) of[m] = sine_frequency(m, pairs, log2_temperature);
    most = std::max(of.front(), of.back());
  }
  bool within_most_angle(float angle) const { return std::abs(angle) * most <= kMostAngle; }
};

// `pairs`: working memory for sines and then cosines.
template <typename T>
void encode(float angle, const Frequencies& f, float* pairs, T* out) {
  const auto count = static_cast<int64_t>(f.of.size());
  const float* frequency = f.of.data();
  if (!f.within_most_angle(angle)) {  // NaN too
    for (int64_t m = 0; m < count; ++m) {
      out[2 * m] = T(std::sin(angle * frequency[m]));
      out[2 * m + 1] = T(std::cos(angle * frequency[m]));
    }
    return;
  }
  for (int64_t m = 0; m < count; ++m) {
    const SineAndCosine at = sine_and_cosine(angle * frequency[m]);
    pairs[m] = at.sine;
    pairs[count + m] = at.cosine;
  }
  for (int64_t m = 0; m < count; ++m) {
    out[2 * m] = T(pairs[m]);
    out[2 * m + 1] = T(pairs[count + m]);
  }
}

// encode(angle(i), ..., out + 2 pairs i) for i in [0, n).
template <typename T, typename Angle>
void encode_all(int64_t n, const Frequencies& frequencies, T* out, Angle&& angle) {
  const auto numbers = static_cast<int64_t>(2 * frequencies.of.size());
  parallel_chunks(n, 32, [&](int64_t begin, int64_t end) {
    std::vector<float> pairs(numbers);
    for (int64_t i = begin; i < end; ++i)
      encode(angle(i), frequencies, pairs.data(), out + i * numbers);
  });
}

// How dsin * sin + dcos * cos changes with the angle, summed over the pairs: eight sums, in order.
template <typename T>
float slope(float angle, const Frequencies& f, const T* d) {
  const auto count = static_cast<int64_t>(f.of.size());
  const bool fast = f.within_most_angle(angle);
  float sums[8] = {};
  for (int64_t m = 0; m < count; ++m) {
    const float a = angle * f.of[m];
    const SineAndCosine at = fast ? sine_and_cosine(a) : SineAndCosine{std::sin(a), std::cos(a)};
    sums[m % 8] += f.of[m] * (float(d[2 * m]) * at.cosine - float(d[2 * m + 1]) * at.sine);
  }
  float sum = 0;
  for (float part : sums) sum += part;
  return sum;
}

}  // namespace

void mark_padding(int64_t images, const PaddingView& view) {
  for_each_place(view.grid.tokens, images, view);
}
void place_references(int64_t images, const ReferenceView& view) {
  for_each_place(view.grid.tokens, images, view);
}
void make_proposals(int64_t images, const ProposalView& view) {
  for_each_place(view.grid.tokens, images, view);
}

void encode_places(const SineView& view, Tensor& lines, Tensor& out) {
  const Frequencies frequencies(view.pairs, view.log2_temperature);
  const int64_t half = 2 * view.pairs, of_image = view.lines.count();
  dispatch_floating(out.dtype(), [&](auto tag) {
    using T = decltype(tag);
    T *table = lines.data<T>(), *to = out.data<T>();
    encode_all(view.images * of_image, frequencies, table,
               [&](int64_t i) { return view.angle(place_of(view.lines, i)); });
    parallel_for(view.images * view.rows.count(), int64_t{2}, [&](int64_t i) {
      const Place row = place_of(view.rows, i);
      const int64_t width = view.width[row.level];
      const T* line = table + row.image * of_image * half;
      const T *y = line + (view.lines.first[2 * row.level] + row.cell) * half,
              *x = line + view.lines.first[2 * row.level + 1] * half;
      const int64_t first = view.tokens.first[row.level] + row.cell * width;
      T* token = to + (row.image * view.tokens.count() + first) * 2 * half;
      for (int64_t column = 0; column < width; ++column, token += 2 * half) {
        std::memcpy(token, y, half * sizeof(T));
        std::memcpy(token + half, x + column * half, half * sizeof(T));
      }
    });
  });
}

void encode_coordinates(const CoordinateView& view, Tensor& out) {
  const Frequencies frequencies(view.pairs, view.log2_temperature);
  dispatch_floating(out.dtype(), [&](auto tag) {
    encode_all(view.count(), frequencies, out.data<decltype(tag)>(),
               [&](int64_t i) { return view.angle(i); });
  });
}

void encode_coordinates_backward(const CoordinateView& view, const Tensor& dout, Tensor& dboxes) {
  const Frequencies frequencies(view.pairs, view.log2_temperature);
  float* to = dboxes.data<float>();
  dispatch_floating(dout.dtype(), [&](auto tag) {
    const auto* d = dout.data<decltype(tag)>();
    parallel_for(view.count(), int64_t{32}, [&](int64_t i) {
      to[view.source(i)] =
          slope(view.angle(i), frequencies, d + i * 2 * view.pairs) * view.ratio(i) * kTwoPi;
    });
  });
}

}  // namespace mixpl::cpu
