// Histograms of sources and the tables that follow from them, without a word to the host.
#include "core/cuda/kernel.h"
#include "image/compose/color.h"
#include "image/compose/color_cuda.h"

namespace mixpl::cuda {
namespace {

constexpr int kThreads = 256, kValues = 256;
constexpr int kChannels = 4;  // R, G, B, grey
constexpr int kCopies = 4;    // of a block's histogram: fewer threads wait for the same counter

MIXPL_DEVICE void count_pixel(int* histogram, int r, int g, int b) {
  atomic_add(&histogram[r], 1);
  atomic_add(&histogram[kValues + g], 1);
  atomic_add(&histogram[2 * kValues + b], 1);
  atomic_add(&histogram[3 * kValues + grey_of(r, g, b)], 1);
}

// Whole numbers: the order in which threads add does not matter. Row blockIdx.y: one source.
MIXPL_KERNEL __launch_bounds__(kThreads)
    histogram_kernel(const StatisticsPlan* sources, int* counts) {
  MIXPL_SHARED(int, copies, kCopies* kChannels* kValues);
  for (int i = threadIdx.x; i < kCopies * kChannels * kValues; i += kThreads) copies[i] = 0;
  sync_block();
  const uint8_t* pixels = sources[blockIdx.y].source;
  const int64_t count = sources[blockIdx.y].pixels, quads = count / 4;
  int* own = copies + (threadIdx.x % kCopies) * kChannels * kValues;
  const int64_t first = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  const uint32_t* words = reinterpret_cast<const uint32_t*>(pixels);  // three hold four pixels
  for (int64_t i = first; i < quads; i += stride) {
    const uint32_t a = load_read_only(words + 3 * i), b = load_read_only(words + 3 * i + 1),
                   c = load_read_only(words + 3 * i + 2);
    count_pixel(own, a & 255, a >> 8 & 255, a >> 16 & 255);
    count_pixel(own, a >> 24, b & 255, b >> 8 & 255);
    count_pixel(own, b >> 16 & 255, b >> 24, c & 255);
    count_pixel(own, c >> 8 & 255, c >> 16 & 255, c >> 24);
  }
  for (int64_t i = 4 * quads + first; i < count; i += stride)
    count_pixel(own, pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2]);
  sync_block();
  int* total = counts + int64_t{blockIdx.y} * kChannels * kValues;
  for (int i = threadIdx.x; i < kChannels * kValues; i += kThreads) {
    int sum = 0;
    for (int k = 0; k < kCopies; ++k) sum += copies[k * kChannels * kValues + i];
    if (sum) atomic_add(&total[i], sum);
  }
}

// A block makes one table, thread v the entries of value v. Called by all threads of a block alike.
MIXPL_DEVICE uint8_t table_entry(const TablePlan& plan, const StatisticsPlan* sources,
                                 const int* counts, int channel, int v) {
  const Blend blend = blend_of(plan.magnitude);
  // -1 where the operation needs none, and then it is not looked at.
  const int* histogram = counts + int64_t{plan.statistics} * (kChannels * kValues);
  switch (plan.op) {
    case ColorOp::auto_contrast: {
      const bool occurs = histogram[channel * kValues + v] != 0;
      const int high = block_max(occurs ? v : 0);
      const int low = 255 - block_max(occurs ? 255 - v : 0);
      return stretched(v, low, high);
    }
    case ColorOp::equalize: {
      const int count = histogram[channel * kValues + v];
      const int highest = histogram[channel * kValues + block_max(count ? v : 0)];
      int total;
      const int before = block_scan_exclusive(count, &total);
      return equalized(v, before, equalized_step(total, highest));
    }
    case ColorOp::contrast: {
      // Whole numbers below 2^53: exact in any order.
      const double sum = block_sum(double(v) * histogram[3 * kValues + v]);
      return blended(blend, v, rounded_mean(sum, sources[plan.statistics].pixels));
    }
    case ColorOp::posterize:
      return posterized(v, plan.magnitude);
    case ColorOp::solarize:
      return solarized(v, plan.magnitude);
    default:
      return blended(blend, v, 0);
  }
}

MIXPL_KERNEL __launch_bounds__(kValues)
    tables_kernel(const TablePlan* plans, const StatisticsPlan* sources, const int* counts,
                  uint8_t* tables) {
  const TablePlan plan = plans[blockIdx.x];
  const int v = static_cast<int>(threadIdx.x);
  for (int c = 0; c < 3; ++c) {
    const uint8_t value = table_entry(plan, sources, counts, plan.bgr ? 2 - c : c, v);
    tables[(int64_t{blockIdx.x} * 3 + c) * kValues + v] = value;
  }
}

}  // namespace

Tensor color_tables(const ComposePlan& plan, const uint8_t* block, Device device) {
  const int64_t sources = plan.statistics.count, tables = plan.tables.count;
  Tensor counts = Tensor::empty({sources, kChannels, kValues}, DType::i32, device);
  Tensor out = Tensor::empty({tables, 3, kValues}, DType::u8, device);
  if (sources) {
    memset_device(counts.raw(), 0, counts.nbytes());
    // A block has to see some ten thousand pixels before its own counters pay.
    const dim3 grid(32, static_cast<unsigned>(sources));
    launch(histogram_kernel, grid, dim3(kThreads), 0, plan.statistics.in(block),
           counts.data<int32_t>());
  }
  launch(tables_kernel, dim3(static_cast<unsigned>(tables)), dim3(kValues), 0,
         plan.tables.in(block), plan.statistics.in(block), counts.data<int32_t>(),
         out.data<uint8_t>());
  return out;
}

}  // namespace mixpl::cuda
