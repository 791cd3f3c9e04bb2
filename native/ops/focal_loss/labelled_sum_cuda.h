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

/// An item of the sum is 16 bytes of entries. Term says what the loss is:
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

  /// Entries from `begin` on, the first of which is `column` of `row`. kLongRows: an item meets two
  /// rows at most, whose labels are asked for at once, while the entries are on their way.
  template <bool kLongRows>
  MIXPL_DEVICE float item(int64_t begin, int64_t row, int32_t column) const {
    const bool whole = begin + kWidth <= numel;
    const int count = whole ? kWidth : static_cast<int>(numel - begin);
    Vec<T, kWidth> values{};
    if (whole) {
      values = load_vec<T, kWidth>(x + begin);
    } else {
      for (int k = 0; k < kWidth; ++k)
        if (k < count) values[k] = x[begin + k];
    }
    const int32_t left = classes - column;  // of the first row
    int32_t label = load_read_only(labels + row), next_label = label;
    auto of_row = term.row(row), of_next = of_row;
    if (kLongRows && left < count) {
      next_label = load_read_only(labels + row + 1);
      of_next = term.row(row + 1);
    }
    Vec<T, kWidth> slopes;
    float sum = 0;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      if (kLongRows && k == left) {
        column = -k;
        label = next_label;
        of_row = of_next;
      }
      if (!kLongRows && column + k == classes && k < count) {
        column = -k;
        label = load_read_only(labels + ++row);
        of_row = term.row(row);
      }
      const EntryTerm t = term.at(float(values[k]), column + k == label, of_row);
      const bool counts = label >= 0 && k < count;
      sum += counts ? t.loss : 0.0f;
      slopes[k] = T(counts ? t.slope : 0.0f);
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

// A thread takes every kReduceThreads-th item of its block: its place moves on without divisions.
template <bool kLongRows, typename Sum>
MIXPL_KERNEL __launch_bounds__(kReduceThreads, 4)
    labelled_sum_kernel(Sum v, int64_t items, int64_t items_a_block, double* partial) {
  constexpr int32_t kStep = kReduceThreads * Sum::kWidth;
  const int32_t rows = kStep / v.classes, columns = kStep % v.classes;
  int64_t i = blockIdx.x * items_a_block + threadIdx.x;
  const int64_t end =
      (blockIdx.x + 1) * items_a_block < items ? (blockIdx.x + 1) * items_a_block : items;
  int64_t row = i * Sum::kWidth / v.classes;
  auto column = static_cast<int32_t>(i * Sum::kWidth - row * v.classes);
  double sum = 0;
  for (; i < end; i += kReduceThreads) {
    sum += double(v.template item<kLongRows>(i * Sum::kWidth, row, column));
    row += rows;
    column += columns;
    if (column >= v.classes) {
      column -= v.classes;
      ++row;
    }
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

/// loss = sum of the terms of all entries; dx (unless undefined) their slopes.
template <typename T, typename Term>
void labelled_sum(const Tensor& x, const Tensor& labels, int64_t classes, const Term& term,
                  Tensor& loss, Tensor& dx,
                  std::source_location where = std::source_location::current()) {
  using Sum = LabelledSum<T, Term>;
  // Blocks for four waves of an H100, as many on every card: the same bits. Small maps get one item
  // a thread, since a thread's items wait for one another.
  constexpr int64_t kBlocks = 2112;
  const int64_t items = (x.numel() + Sum::kWidth - 1) / Sum::kWidth;
  const int64_t turns = (items + kBlocks * kReduceThreads - 1) / (kBlocks * kReduceThreads);
  const int64_t items_a_block = std::max<int64_t>(turns, 1) * kReduceThreads;
  const int64_t blocks = (items + items_a_block - 1) / items_a_block;
  const Tensor partial = scratch(blocks * static_cast<int64_t>(sizeof(double)));
  auto* sums = reinterpret_cast<double*>(partial.raw());
  const Sum v{x.data<T>(), dx.defined() ? dx.data<T>() : nullptr, labels.data<int32_t>(),
              x.numel(),   static_cast<int32_t>(classes),         term};
  launch(classes >= Sum::kWidth ? labelled_sum_kernel<true, Sum> : labelled_sum_kernel<false, Sum>,
         Grid(blocks, where), kReduceThreads, 0, v, items, items_a_block, sums);
  launch(reduce_partials_kernel<>, Grid(1, where), kReduceThreads, 0, blocks, sums,
         loss.data<float>(), 1.0f);
}

}  // namespace mixpl::cuda
