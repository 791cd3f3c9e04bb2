#include "core/cuda/packs.h"
#include "ops/concat_channels/concat_channels.h"

namespace mixpl::cuda {
namespace {

// Rows of `part` beside other parts in the wider rows of `whole`, counted in units of two bytes.
struct Rows {
  uint16_t *part, *whole;
  Divider packs;    // of a row of the part
  int64_t stride;   // of the whole's rows
  bool into_whole;

  template <int N>
  MIXPL_DEVICE void pack(uint32_t i) const {
    uint32_t column = i;
    const uint32_t row = packs.split(column);
    uint16_t *a = part + int64_t{i} * N, *b = whole + row * stride + int64_t{column} * N;
    if (into_whole)
      store_vec(b, load_vec<uint16_t, N>(a));
    else
      store_vec(a, load_vec<uint16_t, N>(b));
  }
};

template <int N>
void copy_rows(const Tensor& part, int64_t first, const Tensor& whole, bool into_whole) {
  const int64_t units = size_of(part.dtype()) / 2, length = part.size(-1) * units;
  for_each_pack<N>(part.numel() * units / N,
                   Rows{static_cast<uint16_t*>(part.raw()),
                        static_cast<uint16_t*>(whole.raw()) + first * units, Divider(length / N),
                        whole.size(-1) * units, into_whole});
}

void copy(const Tensor& part, int64_t first, const Tensor& whole, bool into_whole) {
  if (part.numel() == 0) return;
  const int64_t units = size_of(part.dtype()) / 2;
  const int64_t places = (part.size(-1) | first | whole.size(-1)) * units;
  if (places % 8 == 0)  // all rows of both start at multiples of 16 bytes
    copy_rows<8>(part, first, whole, into_whole);
  else if (places % 2 == 0)
    copy_rows<2>(part, first, whole, into_whole);
  else
    copy_rows<1>(part, first, whole, into_whole);
}

}  // namespace

void put_channels(const Tensor& part, int64_t first, Tensor& whole) {
  copy(part, first, whole, true);
}

void take_channels(const Tensor& whole, int64_t first, Tensor& part) {
  copy(part, first, whole, false);
}

}  // namespace mixpl::cuda
