// Attention on the CPU as the instruction sets offer it; see attention.h for what it does.
#pragma once

#include "ops/attention/attention.h"

namespace mixpl::cpu::attention {

struct Kernels {
  void (*forward)(const AttentionCall& call, Tensor& out, Tensor& log_sums);
  void (*backward)(const AttentionCall& call, const Tensor& dout, const Tensor& log_sums,
                   AttentionGradients& gradients);
};

const Kernels& avx512_kernels();
const Kernels& avx2_kernels();
/// For processors without either.
const Kernels& portable_kernels();

}  // namespace mixpl::cpu::attention
