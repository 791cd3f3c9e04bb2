#include "core/cuda/packs.h"
#include "ops/sigmoid_geometric_mean/sigmoid_geometric_mean.h"
#include "ops/sigmoid_geometric_mean/sigmoid_geometric_mean_math.h"

namespace mixpl::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T>
struct Forward {
  const T *x, *y;
  float* z;
  Divider packs;  // of a row
  template <int N>
  MIXPL_DEVICE void pack(uint32_t i) const {
    const uint32_t row = packs.quotient(i);
    const Vec<T, N> v = load_vec<T, N>(x + int64_t{i} * N);
    const float root = sqrtf(sigmoids(float(y[row])).p);
    Vec<float, N> out;
    for (int n = 0; n < N; ++n) out[n] = geometric_mean(float(v[n]), root);
    store_vec(z + int64_t{i} * N, out);
  }
};

// A warp for each row; dx and dy may be null.
template <typename T>
MIXPL_KERNEL __launch_bounds__(kThreads, 4)
    backward_kernel(int64_t rows, int64_t channels, const float* dz, const T* x, const T* y, T* dx,
                    T* dy) {
  for (int64_t row = thread_index() / 32; row < rows; row += thread_count() / 32) {
    const Sigmoids own = sigmoids(float(y[row]));
    const float half_root = 0.5f * sqrtf(own.p);
    float sum = 0;
    for (int64_t i = row * channels + lane(); i < (row + 1) * channels; i += 32) {
      const MeanSlopes slopes = geometric_mean_slopes(dz[i], float(x[i]), half_root);
      if (dx) dx[i] = T(slopes.dx);
      sum += slopes.share;
    }
    sum = warp_sum(sum);
    if (dy && lane() == 0) dy[row] = T(sum * own.q);
  }
}

}  // namespace

void sigmoid_geometric_mean_forward(const Tensor& x, const Tensor& y, Tensor& z) {
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const int64_t channels = x.size(-1);
    const auto run = [&](auto pack) {
      constexpr int N = decltype(pack)::value;
      for_each_pack<N>(x.numel() / N, Forward<T>{x.data<T>(), y.data<T>(), z.data<float>(),
                                                 Divider(channels / N)});
    };
    if (channels % 4 == 0)  // 16 bytes of the f32 output
      run(PackOf<4>());
    else
      run(PackOf<1>());
  });
}

void sigmoid_geometric_mean_backward(const Tensor& dz, const Tensor& x, const Tensor& y, Tensor& dx,
                                     Tensor& dy) {
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    launch(backward_kernel<T>, blocks_for(y.numel() * 32, kThreads), kThreads, 0, y.numel(),
           x.size(-1), dz.data<float>(), x.data<T>(), y.data<T>(),
           dx.defined() ? dx.data<T>() : nullptr, dy.defined() ? dy.data<T>() : nullptr);
  });
}

}  // namespace mixpl::cuda
