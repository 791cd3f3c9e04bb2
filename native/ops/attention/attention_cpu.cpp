#include "core/avx512.h"
#include "ops/attention/attention_kernels.h"

namespace mixpl::cpu {
namespace {

const attention::Kernels& kernels(DType dtype) {
#if defined(__x86_64__)
  // bf16 needs the instructions that round to it.
  const bool wide = dtype == DType::bf16 ? has_avx512_bf16() : has_avx512();
  return wide ? attention::avx512_kernels() : attention::avx2_kernels();
#else
  return attention::portable_kernels();
#endif
}

}  // namespace

void attention_forward(const AttentionCall& call, Tensor& out, Tensor& log_sums) {
  kernels(out.dtype()).forward(call, out, log_sums);
}

// The output is not read: rows of scores are complete, so the sum that a GPU takes from it is
// theirs.
void attention_backward(const AttentionCall& call, const Tensor& dout, const Tensor&,
                        const Tensor& log_sums, AttentionGradients& gradients) {
  kernels(dout.dtype()).backward(call, dout, log_sums, gradients);
}

}  // namespace mixpl::cpu
