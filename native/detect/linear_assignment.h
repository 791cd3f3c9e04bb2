// The linear assignment problem by shortest augmenting paths: the steps, once for both devices, so
// that both make the same pairs. What walks over columns is in the device files.
//
// Rows come one after another. Dijkstra's algorithm looks for the shortest path, in costs reduced
// by the potentials u and v, from the new row to a column without one; along it rows move on to the
// next column. Path lengths and potentials are f64 sums in a fixed order, without products, which
// leaves nothing to a compiler.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/launch.h"

namespace mixpl {

/// How far a column is. Of those equally far, one without a row comes first, as the path ends
/// there, then the lower index.
struct Reach {
  double length;
  int32_t rank;

  static constexpr int32_t kOwned = 1 << 30;
  MIXPL_HD static Reach never() { return {INFINITY, INT32_MAX}; }
  MIXPL_HD int32_t column() const { return rank & ~kOwned; }
  MIXPL_HD bool owned() const { return rank & kOwned; }
  MIXPL_HD bool before(const Reach& other) const {
    return length < other.length || (length == other.length && rank < other.rank);
  }
};

/// @tparam F double, or a vector of them. NaN and infinity must not be among costs.
template <typename F>
MIXPL_HD F path_length(F base, F cost, F v) {
  return base + (cost - v);
}

/// State of one problem with rows <= columns; memory belongs to the caller.
struct Assignment {
  int32_t rows = 0, columns = 0;
  double *v = nullptr,
         *open = nullptr;  // per column: potential; length, infinite once it is closed
  double *u = nullptr, *closed_length = nullptr;  // per row
  int32_t *path = nullptr, *owner = nullptr;  // per column: row before it; row that has it or -1
  int32_t *own = nullptr, *closed = nullptr;  // per row: its column or -1; column closed k-th

  Assignment() = default;
  /// In memory of bytes(rows, columns), aligned to 8 bytes.
  MIXPL_HD Assignment(void* memory, int32_t rows, int32_t columns) : rows(rows), columns(columns) {
    v = static_cast<double*>(memory);
    open = v + columns;
    u = open + columns;
    closed_length = u + rows;
    path = reinterpret_cast<int32_t*>(closed_length + rows);
    owner = path + columns;
    own = owner + columns;
    closed = own + rows;
  }
  MIXPL_HD static int64_t bytes(int64_t rows, int64_t columns) { return 24 * (rows + columns); }

  MIXPL_HD void clear_row(int32_t i) const {
    u[i] = 0;
    own[i] = -1;
  }
  MIXPL_HD void clear_column(int32_t j) const {
    v[j] = 0;
    owner[j] = -1;
  }

  /// Looks at column j from a row at `base` = length of the path to the row - u[row]. The first
  /// row of a path reaches every column, which opens all.
  MIXPL_HD Reach reach(int32_t row, double base, float cost, int32_t j, bool first) const {
    const double before = open[j], length = path_length(base, double(cost), v[j]);
    const bool nearer = first || (before < INFINITY && length < before);
    if (nearer) {
      open[j] = length;
      path[j] = row;
    }
    return {nearer ? length : before, owner[j] < 0 ? j : j | Reach::kOwned};
  }
  /// No shorter path to its column comes any more; it is the k-th of this row's search.
  MIXPL_HD void close(int32_t k, Reach at) const {
    closed[k] = at.column();
    closed_length[k] = at.length;
    open[at.column()] = INFINITY;
  }
  /// The k-th closed column's potentials, when the path's whole length is known.
  MIXPL_HD void shift(int32_t k, double whole) const {
    const int32_t j = closed[k];
    const double by = whole - closed_length[k];
    v[j] -= by;
    u[owner[j]] += by;
  }
  /// Gives the rows of a path their next columns; `row` is the new one. After the shifts.
  MIXPL_HD void flip(int32_t row, Reach end) const {
    u[row] = end.length;
    for (int32_t j = end.column(), i = -1; i != row;) {
      i = path[j];
      owner[j] = i;
      const int32_t next = own[i];
      own[i] = j;
      j = next;
    }
  }
};

}  // namespace mixpl
