// What losses over [rows, classes] with a label a row have in common on a GPU: walking along the
// entries with few divisions and wide loads, and writing the gradient beside the loss.
#pragma once

#include "core/cuda/kernel.h"
#include "core/tensor.h"

namespace mixpl::cuda {

/// What one entry adds to the loss, and its gradient.
struct EntryTerm {
  float loss, slope;
};

/// Item i of the sum: 16 bytes of entries. Term says what the loss is:
///   Term::Row row(int64_t r)                            what entries of row r need to know
///   EntryTerm at(float x, bool is_label, Row of_row)    one entry
/// Rows with a negative label have neither loss nor gradient, whatever they hold.
template <typename T, typename Term>
struct LabelledSum {
  static constexpr int kWidth = 16 / sizeof(T);

  const T* __restrict__ x;
  T* __restrict__ dx;  // null: nobody wants the gradient
  const int32_t* __restrict__ labels;
  int64_t numel;
  int32_t classes;
  Term term;

  MIXPL_DEVICE float operator()(int64_t i) const {
    const int64_t begin = i * kWidth;
    int64_t row = begin / classes;
    auto column = static_cast<int32_t>(begin - row * classes);
    int32_t label = load_read_only(labels + row);
    auto of_row = term.row(row);
    const bool whole = begin + kWidth <= numel;
    const int count = whole ? kWidth : static_cast<int>(numel - begin);
    Vec<T, kWidth> values{};
    if (whole) {
      values = load_vec<T, kWidth>(x + begin);
    } else {
      for (int k = 0; k < kWidth; ++k)
        if (k < count) values[k] = x[begin + k];
    }
    Vec<T, kWidth> slopes;
    float sum = 0;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      if (column == classes && k < count) {
        column = 0;
        label = load_read_only(labels + ++row);
        of_row = term.row(row);
      }
      const EntryTerm t = term.at(float(values[k]), column == label, of_row);
      const bool counts = label >= 0 && k < count;
      sum += counts ? t.loss : 0.0f;
      slopes[k] = T(counts ? t.slope : 0.0f);
      ++column;
    }
    if (!dx) return sum;
    if (whole) {
      store_vec(dx + begin, slopes);
    } else {
      for (int k = 0; k < kWidth; ++k)
        if (k < count) dx[begin + k] = slopes[k];
    }
    return sum;
  }
};

/// loss = sum of the terms of all entries; dx (unless undefined) their slopes.
template <typename T, typename Term>
void labelled_sum(const Tensor& x, const Tensor& labels, int64_t classes, const Term& term,
                  Tensor& loss, Tensor& dx) {
  using Sum = LabelledSum<T, Term>;
  const int64_t n = x.numel();
  reduce_sum((n + Sum::kWidth - 1) / Sum::kWidth,
             Sum{x.data<T>(), dx.defined() ? dx.data<T>() : nullptr, labels.data<int32_t>(), n,
                 static_cast<int32_t>(classes), term},
             loss.data<float>());
}

}  // namespace mixpl::cuda
