// Loops over OpenMP with a fixed split, so results do not depend on timing.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <vector>

namespace mixpl {

/// Threads a loop started here would use.
inline int num_threads() { return omp_get_max_threads(); }

/// f(begin, end) over contiguous chunks of [0, n), one per thread; runs inline when n <= grain.
/// An exception thrown by f is rethrown here.
template <typename F>
void parallel_chunks(int64_t n, int64_t grain, F&& f) {
  if (n <= 0) return;
  const int64_t chunks =
      std::min<int64_t>(num_threads(), (n + grain - 1) / std::max<int64_t>(grain, 1));
  if (chunks <= 1 || omp_in_parallel()) {
    f(int64_t{0}, n);
    return;
  }
  std::exception_ptr error;
#pragma omp parallel for schedule(static, 1) num_threads(static_cast <int>(chunks))
  for (int64_t c = 0; c < chunks; ++c) {
    try {
      f(n * c / chunks, n * (c + 1) / chunks);
    } catch (...) {
#pragma omp critical
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

/// f(i) for i in [0, n); grain = least items worth a thread of their own.
template <typename F>
void parallel_for(int64_t n, int64_t grain, F&& f) {
  parallel_chunks(n, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i);
  });
}
template <typename F>
void parallel_for(int64_t n, F&& f) {
  parallel_for(n, int64_t{4096}, f);
}

/// Sum of f(i) in double, chunked by `kSumChunk` items and added in order: the same bits for any
/// number of threads.
template <typename F>
double parallel_sum(int64_t n, F&& f) {
  constexpr int64_t kSumChunk = 8192;
  const int64_t chunks = (n + kSumChunk - 1) / kSumChunk;
  std::vector<double> partial(chunks, 0.0);
  parallel_for(chunks, int64_t{1}, [&](int64_t c) {
    double sum = 0;
    const int64_t end = std::min(n, (c + 1) * kSumChunk);
    for (int64_t i = c * kSumChunk; i < end; ++i) sum += f(i);
    partial[c] = sum;
  });
  double total = 0;
  for (double p : partial) total += p;
  return total;
}

}  // namespace mixpl
