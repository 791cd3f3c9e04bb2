#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <vector>

#include "core/cuda/emulation/grid.h"

namespace mixpl::cuda::emulation {
namespace {

constexpr int kRows = 64, kTerms = 16;

// Where an element of an operand lies, by the canonical layouts of 128-byte swizzle.
class Operand {
 public:
  Operand(uint64_t descriptor, bool along_result, int extent) : along_result_(along_result) {
    const auto field = [descriptor](int bit) { return int(descriptor >> bit & 0x3fff) << 4; };
    start_ = field(0);
    leading_ = field(16);
    stride_ = field(32);
    if (descriptor >> 62 != 1) fail("wgmma: only 128-byte swizzle is emulated");
    if (start_ & 0x380) fail("wgmma: a tile must start in the first row of a piece of 1 KiB");
    const int last = address(extent - 1, kTerms - 1);
    if (!in_shared_memory(base() + last, 2)) fail("wgmma: reads beyond the shared memory");
  }
  float at(int result, int term) const {
    uint16_t bits;
    std::memcpy(&bits, base() + address(result, term), 2);
    return std::bit_cast<float>(uint32_t{bits} << 16);
  }

 private:
  static const char* base() { return static_cast<const char*>(dynamic_shared_memory()); }
  int address(int result, int term) const {
    const int a = along_result_ ? start_ + result / 64 * leading_ + term / 8 * stride_ +
                                      term % 8 * 128 + result % 64 * 2
                                : start_ + result / 8 * stride_ + result % 8 * 128 + term * 2;
    return a ^ (a >> 7 & 7) << 4;
  }
  bool along_result_;
  int start_, leading_, stride_;
};

// What a lane brings to the meeting: those of its products that are due.
struct Due {
  const WarpgroupProduct* products;
  int count, warp;
};

void multiply(Meeting& meeting) {
  if (meeting.present != 0xffffffffu) fail("wgmma_wait needs all 32 lanes of the warp");
  Due lanes[kWarpSize];
  for (int l = 0; l < kWarpSize; ++l) std::memcpy(&lanes[l], &meeting.lanes[l], sizeof(Due));
  for (const Due& other : lanes)
    if (other.count != lanes[0].count)
      fail("wgmma: lanes of a warp have issued different products");
  const int first_row = lanes[0].warp % 4 * 16;
  for (int i = 0; i < lanes[0].count; ++i) {
    const WarpgroupProduct& product = lanes[0].products[i];
    for (const Due& other : lanes)
      if (other.products[i].a != product.a || other.products[i].b != product.b)
        fail("wgmma: lanes of a warp have given different descriptors");
    const int columns = 2 * product.count;
    const Operand left(product.a, product.a_result, kRows);
    const Operand right(product.b, product.b_result, columns);
    std::vector<float> a(16 * kTerms), b(columns * kTerms);
    for (int k = 0; k < kTerms; ++k) {
      for (int r = 0; r < 16; ++r) a[r * kTerms + k] = left.at(first_row + r, k);
      for (int c = 0; c < columns; ++c) b[c * kTerms + k] = right.at(c, k);
    }
    for (int l = 0; l < kWarpSize; ++l) {
      const WarpgroupProduct& own = lanes[l].products[i];
      if (own.first) std::copy(own.start.begin(), own.start.end(), own.sums);
      for (int e = 0; e < own.count; ++e) {
        const int row = l / 4 + 8 * (e / 2 % 2), column = e / 4 * 8 + 2 * (l % 4) + e % 2;
        // As mma: products exact, the sum rounded once.
        double sum = own.add ? own.sums[e] : 0;
        for (int k = 0; k < kTerms; ++k)
          sum += double(a[row * kTerms + k]) * b[column * kTerms + k];
        own.sums[e] = static_cast<float>(sum);
      }
    }
  }
}

}  // namespace

void run_products(const std::vector<WarpgroupProduct>& due, const std::source_location& where) {
  const Due own{due.data(), static_cast<int>(due.size()), linear_thread() / kWarpSize};
  LaneData data = {};
  std::memcpy(&data, &own, sizeof own);
  meet("wgmma_wait", 0xffffffffu, where, data, multiply);
}

}  // namespace mixpl::cuda::emulation
