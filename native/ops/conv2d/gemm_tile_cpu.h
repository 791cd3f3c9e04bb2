// The innermost loop of Winograd's convolutions: rows of x times a panel of w, all sums in
// registers.
#pragma once

#include <cstdint>

namespace mixpl::cpu {

constexpr int kTileLanes = 16;  // columns of a vector

/// y[row, column] (+)= sum over depth of x[row, depth] w[depth, column], in order of depth.
struct GemmTile {
  const float* x;
  int64_t x_row, x_step;  // numbers from a row, a step of depth, to the next
  int64_t depth;
  const float* w;
  int64_t w_step;
  const float* next_x;  // what the next tile reads: asked for, a line a step of depth
  float* y;             // [row][column]
  bool add;
};

using GemmTileFunction = void (*)(const GemmTile&);

/// Most rows of a tile of 1, 2 or 3 vectors of columns: what 32 registers hold.
constexpr int most_tile_rows(int vectors) { return vectors == 3 ? 9 : 14; }

/// The function for 1 … most_tile_rows(vectors) rows and 1 … 3 vectors. Needs AVX-512.
GemmTileFunction gemm_tile(int64_t rows, int vectors);

}  // namespace mixpl::cpu
