// Winograd's convolutions as the instruction sets offer them; see winograd_cpu.h for what they do.
#pragma once

#include "ops/conv2d/conv2d.h"

namespace mixpl::cpu::winograd {

constexpr int kOut = 4, kIn = 6;      // pixels of a tile's side, after and before
constexpr int kProducts = kIn * kIn;  // of a tile

struct Kernels {
  void (*forward)(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& residual,
                  const Conv2dOptions& options, Tensor& y);
  void (*backward_data)(const Tensor& dy, const Tensor& weight, const Conv2dOptions& options,
                        Tensor& dx);
  void (*backward_weight)(const Tensor& x, const Tensor& dy, const Conv2dOptions& options,
                          Tensor& dweight);
  int64_t group_tiles;  // tiles whose transforms are worked on together
};

const Kernels& avx512_kernels();
const Kernels& avx2_kernels();

}  // namespace mixpl::cpu::winograd
