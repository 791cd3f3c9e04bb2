#include "optim/flat_table_cuda.h"
#include "optim/gradient_norm.h"

namespace mixpl::cuda {
namespace {

// A piece's sum of squares, in double as on the CPU: f32 squares overflow and lose digits.
struct SquaresBody {
  double* __restrict__ partial;

  MIXPL_DEVICE void operator()(FlatPiece piece, const UpdateRow& row) const {
    double sum = 0;
    if (row.gradient)
      for_each_four(piece, row.numel, [&](int64_t at, int64_t count) {
        const Four g = load_four(row.gradient + at, count);
#pragma unroll
        for (int k = 0; k < 4; ++k) sum += double(g[k]) * g[k];
      });
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
  }
};

// One block; threads and then their sums are added in a fixed order.
MIXPL_KERNEL clip_kernel(const double* __restrict__ partial, int64_t count, double clip_norm,
                         const float* __restrict__ losses, int64_t num_losses,
                         Clip* __restrict__ clip) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kFlatThreads) sum += partial[i];
  const double norm = sqrt(block_sum(sum));
  int32_t bad = 0;
  for (int64_t i = threadIdx.x; i < num_losses; i += kFlatThreads) bad += !is_finite(losses[i]);
  bad = block_sum(bad);
  if (threadIdx.x == 0) *clip = {norm, clip_scale(norm, clip_norm), bad == 0};
}

}  // namespace

void clip_gradients(UpdateTable& table, double clip_norm, Tensor& clip) {
  const auto count = static_cast<int64_t>(table.pieces().size());
  Tensor partial = Tensor::empty({count, sizeof(double)}, DType::u8, clip.device());
  auto* sums = static_cast<double*>(partial.raw());
  for_each_piece(table, clip.device(), SquaresBody{sums});
  launch(clip_kernel, dim3(1), dim3(kFlatThreads), 0, sums, count, clip_norm,
         clip.data<float>() + Clip::kFloats, clip.numel() - Clip::kFloats, Clip::of(clip));
}

}  // namespace mixpl::cuda
