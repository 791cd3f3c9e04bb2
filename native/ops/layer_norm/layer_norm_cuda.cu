#include "core/cuda/channel_sums.h"
#include "ops/layer_norm/layer_norm.h"
#include "ops/layer_norm/layer_norm_math.h"

namespace mixpl::cuda {
namespace {

constexpr int kWarpThreads = 256, kBlockThreads = 128;
// Of the backward pass, each with partial sums for gamma and beta: four blocks on each of an H100's
// multiprocessors, of rows enough that those sums are few beside the rows.
constexpr int64_t kMostBlocks = 512, kLeastRows = 32;

/// How a row is kept in registers: kPacks packs of 16 bytes for each thread of a team, which is a
/// warp or a block. What does not fit, or has no whole packs, is read again (`long_...`).
template <typename T, int kTeam, int kPacksOfThread>
struct Layout {
  static constexpr int kPacks = kPacksOfThread, N = kVecWidth<T>;
  static constexpr int kThreads = kTeam == 32 ? kWarpThreads : kBlockThreads;
  static constexpr int kTeams = kThreads / kTeam;
  // On a multiprocessor in the backward pass: as many as its grid has, or what leaves registers
  // enough; 0: as ptxas likes.
  static constexpr int kBlocks = kPacks == 1 ? 4 : kPacks == 2 ? 0 : 2;

  static MIXPL_DEVICE float sum(float v) {
    if constexpr (kTeam == 32)
      return warp_sum(v);
    else
      return block_sum(v);
  }
  static MIXPL_DEVICE int channel(int pack) {
    return (pack * kTeam + static_cast<int>(threadIdx.x) % kTeam) * N;
  }
  static MIXPL_DEVICE int team() { return static_cast<int>(threadIdx.x) / kTeam; }
  static MIXPL_DEVICE bool leads() { return threadIdx.x % kTeam == 0; }
};

template <typename T>
struct Rows {
  const T *x, *residual;  // residual may be null
  const float* gamma;
  float *mean, *rstd;
  int64_t rows;
  int channels;

  explicit Rows(const LayerNormForward& f)
      : x(f.x.data<T>()),
        residual(f.residual.defined() ? f.residual.data<T>() : nullptr),
        gamma(f.gamma.data<float>()),
        mean(f.mean.data<float>()),
        rstd(f.rstd.data<float>()),
        rows(f.rows()),
        channels(static_cast<int>(index_of(f.channels()))) {}

  MIXPL_DEVICE float at(int64_t i) const {
    return float(x[i]) + (residual ? float(residual[i]) : 0.0f);
  }
  /// The packs of this thread, 0 beyond the row.
  template <typename L>
  MIXPL_DEVICE void load(int64_t row, float (&s)[L::kPacks][L::N]) const {
    Vec<T, L::N> v[L::kPacks] = {}, add[L::kPacks] = {};
#pragma unroll
    for (int k = 0; k < L::kPacks; ++k) {
      const int64_t i = row * channels + L::channel(k);
      if (L::channel(k) >= channels) continue;
      v[k] = load_vec<T, L::N>(x + i);
      if (residual) add[k] = load_vec<T, L::N>(residual + i);
    }
#pragma unroll
    for (int k = 0; k < L::kPacks; ++k)
#pragma unroll
      for (int n = 0; n < L::N; ++n) s[k][n] = float(v[k][n]) + float(add[k][n]);
  }
};

/// N parameters, in accesses of 16 bytes.
template <int N>
MIXPL_DEVICE void load_parameters(const float* p, float (&values)[N]) {
#pragma unroll
  for (int first = 0; first < N; first += 4) {
    const Vec<float, 4> v = load_vec<float, 4>(p + first);
#pragma unroll
    for (int n = 0; n < 4; ++n) values[first + n] = v[n];
  }
}

template <typename T, typename L>
MIXPL_KERNEL __launch_bounds__(L::kThreads)
    forward_kernel(Rows<T> in, const float* __restrict__ beta, float eps, T* __restrict__ y) {
  constexpr int N = L::N;
  const int64_t step = int64_t{gridDim.x} * L::kTeams;
  for (int64_t row = int64_t{blockIdx.x} * L::kTeams + L::team(); row < in.rows; row += step) {
    float s[L::kPacks][N];
    in.template load<L>(row, s);
    // Around the first value, which loses nothing where the mean is large.
    const float first = in.at(row * in.channels);
    float sum = 0, squares = 0;
#pragma unroll
    for (int k = 0; k < L::kPacks; ++k)
      if (L::channel(k) < in.channels)
#pragma unroll
        for (int n = 0; n < N; ++n) sum += s[k][n] - first;
    const float mean = first + L::sum(sum) / static_cast<float>(in.channels);
#pragma unroll
    for (int k = 0; k < L::kPacks; ++k)
      if (L::channel(k) < in.channels)
#pragma unroll
        for (int n = 0; n < N; ++n) {
          const float d = s[k][n] - mean;
          squares = fmaf(d, d, squares);
        }
    const float rstd = layer_norm_rstd(L::sum(squares) / static_cast<float>(in.channels), eps);
#pragma unroll
    for (int k = 0; k < L::kPacks; ++k) {
      const int c = L::channel(k);
      if (c >= in.channels) continue;
      float gamma[N], shift[N];
      load_parameters(in.gamma + c, gamma);
      load_parameters(beta + c, shift);
      Vec<T, N> out;
#pragma unroll
      for (int n = 0; n < N; ++n)
        out[n] = T(layer_norm_value(s[k][n], mean, rstd, gamma[n], shift[n]));
      store_vec(y + row * in.channels + c, out);
    }
    if (L::leads()) {
      in.mean[row] = mean;
      in.rstd[row] = rstd;
    }
  }
}

// Adds the teams' sums of pack k, in order, into partial [C].
template <typename L>
MIXPL_DEVICE void put_sums(const float (&sum)[L::N], int k, int channels, float* partial) {
  if constexpr (L::kTeams == 1) {
    const int c = L::channel(k);
    if (c < channels)
#pragma unroll
      for (int n = 0; n < L::N; ++n) partial[c + n] = sum[n];
  } else {
    MIXPL_SHARED(float, of_threads, L::N* L::kThreads);
    sync_block();
#pragma unroll
    for (int n = 0; n < L::N; ++n) of_threads[n * L::kThreads + threadIdx.x] = sum[n];
    sync_block();
    constexpr int kMembers = L::kThreads / L::kTeams;
    for (int i = threadIdx.x; i < L::N * kMembers; i += L::kThreads) {
      const int n = i / kMembers, member = i % kMembers;
      const int c = (k * kMembers + member) * L::N + n;
      if (c >= channels) continue;
      float total = 0;
      for (int t = 0; t < L::kTeams; ++t)
        total += of_threads[n * L::kThreads + t * kMembers + member];
      partial[c] = total;
    }
  }
}

// dx may be dy: a thread reads its part of a row before it writes it. partial: [blocks, 2, C], or
// null; dx may be null, too.
template <typename T, typename L>
MIXPL_KERNEL __launch_bounds__(L::kThreads, L::kBlocks)
    backward_kernel(Rows<T> in, int64_t rows_of_block, const T* dy, T* dx, float* partial) {
  constexpr int N = L::N;
  float dgamma[L::kPacks][N] = {}, dbeta[L::kPacks][N] = {};
  const int64_t begin = int64_t{blockIdx.x} * rows_of_block;
  const int64_t end = begin + rows_of_block < in.rows ? begin + rows_of_block : in.rows;
  for (int64_t row = begin + L::team(); row < end; row += L::kTeams) {
    float h[L::kPacks][N];
    Vec<T, N> d[L::kPacks] = {};
    in.template load<L>(row, h);
#pragma unroll
    for (int k = 0; k < L::kPacks; ++k)
      if (L::channel(k) < in.channels)
        d[k] = load_vec<T, N>(dy + row * in.channels + L::channel(k));
    const float mean = in.mean[row], rstd = in.rstd[row];
    float sum_g = 0, sum_gh = 0;
#pragma unroll
    for (int k = 0; k < L::kPacks; ++k) {
      if (L::channel(k) >= in.channels) continue;
      float gamma[N];
      load_parameters(in.gamma + L::channel(k), gamma);
#pragma unroll
      for (int n = 0; n < N; ++n) {
        h[k][n] = (h[k][n] - mean) * rstd;
        const float out = float(d[k][n]), g = out * gamma[n];
        sum_g += g;
        sum_gh = fmaf(g, h[k][n], sum_gh);
        dgamma[k][n] = fmaf(out, h[k][n], dgamma[k][n]);
        dbeta[k][n] += out;
      }
    }
    if (!dx) continue;
    const float mean_g = L::sum(sum_g) / static_cast<float>(in.channels);
    const float mean_gh = L::sum(sum_gh) / static_cast<float>(in.channels);
#pragma unroll
    for (int k = 0; k < L::kPacks; ++k) {
      const int c = L::channel(k);
      if (c >= in.channels) continue;
      float gamma[N];
      load_parameters(in.gamma + c, gamma);
      Vec<T, N> out;
#pragma unroll
      for (int n = 0; n < N; ++n)
        out[n] = T(layer_norm_slope(float(d[k][n]) * gamma[n], h[k][n], rstd, mean_g, mean_gh));
      store_vec(dx + row * in.channels + c, out);
    }
  }
  if (!partial) return;
  partial += int64_t{blockIdx.x} * 2 * in.channels;
#pragma unroll
  for (int k = 0; k < L::kPacks; ++k) {
    put_sums<L>(dgamma[k], k, in.channels, partial);
    put_sums<L>(dbeta[k], k, in.channels, partial + in.channels);
  }
}

// Rows of any length, a warp each, read as often as they are needed.

constexpr int kLongRows = kWarpThreads / 32;

template <typename T>
MIXPL_KERNEL __launch_bounds__(kWarpThreads)
    long_forward_kernel(Rows<T> in, const float* __restrict__ beta, float eps, T* __restrict__ y) {
  const int64_t row = int64_t{blockIdx.x} * kLongRows + warp();
  if (row >= in.rows) return;
  const int64_t base = row * in.channels;
  const float first = in.at(base), size = static_cast<float>(in.channels);
  float sum = 0, squares = 0;
  for (int c = lane(); c < in.channels; c += 32) sum += in.at(base + c) - first;
  const float mean = first + warp_sum(sum) / size;
  for (int c = lane(); c < in.channels; c += 32) {
    const float d = in.at(base + c) - mean;
    squares = fmaf(d, d, squares);
  }
  const float rstd = layer_norm_rstd(warp_sum(squares) / size, eps);
  for (int c = lane(); c < in.channels; c += 32)
    y[base + c] = T(layer_norm_value(in.at(base + c), mean, rstd, in.gamma[c], beta[c]));
  if (lane() == 0) {
    in.mean[row] = mean;
    in.rstd[row] = rstd;
  }
}

template <typename T>
MIXPL_KERNEL __launch_bounds__(kWarpThreads) long_backward_kernel(Rows<T> in, const T* dy, T* dx) {
  const int64_t row = int64_t{blockIdx.x} * kLongRows + warp();
  if (row >= in.rows) return;
  const int64_t base = row * in.channels;
  const float mean = in.mean[row], rstd = in.rstd[row], size = static_cast<float>(in.channels);
  float sum_g = 0, sum_gh = 0;
  for (int c = lane(); c < in.channels; c += 32) {
    const float g = float(dy[base + c]) * in.gamma[c];
    sum_g += g;
    sum_gh = fmaf(g, (in.at(base + c) - mean) * rstd, sum_gh);
  }
  const float mean_g = warp_sum(sum_g) / size, mean_gh = warp_sum(sum_gh) / size;
  for (int c = lane(); c < in.channels; c += 32) {
    const float g = float(dy[base + c]) * in.gamma[c], h = (in.at(base + c) - mean) * rstd;
    dx[base + c] = T(layer_norm_slope(g, h, rstd, mean_g, mean_gh));
  }
}

// Partial sums for gamma and beta of a chunk of rows.
template <typename T>
MIXPL_KERNEL __launch_bounds__(kChannelThreads)
    long_sums_kernel(ChannelBlocks b, Rows<T> in, const T* __restrict__ dy, float* partial) {
  const ChannelShare s = ChannelShare::of(b, PackOf<1>());
  float sum[2][1] = {};
  for (int64_t row = s.begin; row < s.end; row += b.rows) {
    const int64_t i = row * b.channels + s.channel;
    const float d = float(dy[i]);
    sum[0][0] = fmaf(d, (in.at(i) - in.mean[row]) * in.rstd[row], sum[0][0]);
    sum[1][0] += d;
  }
  add_rows(b, s, sum, partial + int64_t{blockIdx.x} * 2 * b.channels);
}

struct PutGradients {
  float *dgamma, *dbeta;
  int64_t channels;
  MIXPL_DEVICE void operator()(int64_t, int64_t i, double sum) const {
    (i < channels ? dgamma[i] : dbeta[i - channels]) = static_cast<float>(sum);
  }
};

/// f(Layout) with the one that holds a row, or f(nullptr) where none does.
template <typename T, typename F>
void with_layout(int64_t channels, bool aligned, F&& f) {
  const int64_t packs = channels / kVecWidth<T>;
  if (channels % kVecWidth<T> != 0 || !aligned) return f(nullptr);
  if (packs <= 32) return f(Layout<T, 32, 1>());
  if (packs <= 64) return f(Layout<T, 32, 2>());
  if (packs <= kBlockThreads) return f(Layout<T, kBlockThreads, 1>());
  // 32 values a thread, of which the backward pass keeps four kinds.
  constexpr int kMost = 32 / kVecWidth<T>;
  if (packs <= kMost * kBlockThreads) return f(Layout<T, kBlockThreads, kMost>());
  f(nullptr);
}

template <typename T>
bool aligned(const Rows<T>& in) {
  return is_aligned_for<T, kVecWidth<T>>(in.x) && is_aligned_for<T, kVecWidth<T>>(in.residual) &&
         is_aligned_for<float, 4>(in.gamma);
}

unsigned long_blocks(int64_t rows) { return index_of((rows + kLongRows - 1) / kLongRows); }

template <typename T>
void forward(LayerNormForward& f, Tensor& y) {
  const Rows<T> in(f);
  const float* beta = f.beta.data<float>();
  T* out = y.data<T>();
  with_layout<T>(f.channels(), aligned(in) && is_aligned_for<float, 4>(beta), [&](auto layout) {
    using L = decltype(layout);
    if constexpr (std::is_same_v<L, std::nullptr_t>)
      launch(long_forward_kernel<T>, long_blocks(in.rows), kWarpThreads, 0, in, beta, f.eps, out);
    else
      launch(forward_kernel<T, L>, blocks_for(in.rows, L::kTeams), L::kThreads, 0, in, beta, f.eps,
             out);
  });
}

template <typename T>
void backward(LayerNormBackward& b) {
  const Rows<T> in(b.forward);
  const T* dy = b.dy.data<T>();
  T* dx = b.dx.defined() ? b.dx.data<T>() : nullptr;
  const int64_t channels = in.channels;
  Tensor partial;
  const auto sums_of = [&](int64_t chunks) -> float* {
    if (!b.dgamma.defined()) return nullptr;
    partial = Tensor::empty({chunks, 2, channels}, DType::f32, b.dy.device());
    return partial.data<float>();
  };
  with_layout<T>(channels, aligned(in) && is_aligned_for<T, kVecWidth<T>>(dy), [&](auto layout) {
    using L = decltype(layout);
    if constexpr (std::is_same_v<L, std::nullptr_t>) {
      // The sums first: dx may be written over dy.
      const ChannelBlocks blocks(1, in.rows, channels, 1);
      if (float* sums = sums_of(blocks.chunks))
        launch(long_sums_kernel<T>, blocks.grid(), kChannelThreads, 0, blocks, in, dy, sums);
      if (dx) launch(long_backward_kernel<T>, long_blocks(in.rows), kWarpThreads, 0, in, dy, dx);
    } else {
      const int64_t rows = std::max(kLeastRows, (in.rows + kMostBlocks - 1) / kMostBlocks);
      const int64_t blocks = (in.rows + rows - 1) / rows;
      float* sums = sums_of(blocks);
      launch(backward_kernel<T, L>, blocks, L::kThreads, 0, in, rows, dy, dx, sums);
    }
  });
  if (partial.defined())
    merge_chunks(1, static_cast<uint32_t>(partial.size(0)), partial.data<float>(), 2 * channels,
                 PutGradients{b.dgamma.data<float>(), b.dbeta.data<float>(), channels});
}

}  // namespace

void layer_norm_forward(LayerNormForward& f, Tensor& y) {
  dispatch_floating(f.x.dtype(), [&](auto tag) { forward<decltype(tag)>(f, y); });
}

void layer_norm_backward(LayerNormBackward& b) {
  dispatch_floating(b.forward.x.dtype(), [&](auto tag) { backward<decltype(tag)>(b); });
}

}  // namespace mixpl::cuda
