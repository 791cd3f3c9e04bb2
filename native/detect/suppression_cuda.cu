#include <memory>

#include "detect/score_voting.h"
#include "detect/suppression_cuda.h"

namespace mixpl::cuda {

Candidates::Candidates(int64_t n, int64_t most, Device device)
    : items(Tensor::empty({n * most * static_cast<int64_t>(sizeof(Candidate))}, DType::u8, device)),
      counts(Tensor::zeros({n}, DType::i32, device)),
      images(n),
      capacity(most) {}

CandidatesView Candidates::view() const {
  return {reinterpret_cast<Candidate*>(items.raw()), counts.data<int32_t>(), capacity};
}

namespace {

unsigned grid(int64_t n) { return static_cast<unsigned>(n); }

// One block goes through one class of one image, best first, 64 boxes at a time: all threads
// compare them with what was kept before, then with each other; one thread decides in order.
constexpr int kWindow = 64, kSuppressThreads = 512, kSlices = kSuppressThreads / kWindow;
constexpr int kAtOnce = 4;      // kept boxes that a thread asks for before it compares
constexpr int kLabelsEach = 8;  // that a thread looks at before the block counts

struct SuppressView {
  RankedView in;
  float iou_thr;
  int64_t most;      // of a class
  int32_t* used;     // [N]: places of `members` and `kept` that classes have taken
  int32_t* members;  // [N, capacity]: ranks of a class in a row
  Box* kept;         // [N, capacity]: its kept boxes in a row
  uint8_t* keep;     // [N, capacity]: 1 for ranks that are kept
};

MIXPL_DEVICE int ones(uint64_t bits) {
  return popcount(static_cast<uint32_t>(bits)) + popcount(static_cast<uint32_t>(bits >> 32));
}

MIXPL_DEVICE bool suppresses(Box kept, Box b, float iou_thr) {
  const float inter = box_intersection(b, kept);
  const float whole = box_area(b) + box_area(kept) - inter;
  // Most boxes are far apart, and a division takes as long as all else here. Where the product,
  // rounded, is the larger one by this much, the quotient is below the threshold.
  if (inter < iou_thr * whole * (1 - 1e-6f)) return false;
  return whole > 0 && inter / whole > iou_thr;  // as on the host: two points do not overlap
}

// The ranks of the class `label`, in a row from the place that is returned.
MIXPL_DEVICE int64_t members_of(const SuppressView& v, int64_t image, int32_t label, int64_t n,
                                int32_t* count) {
  const int32_t* labels = v.in.labels + image * v.in.capacity;
  int32_t own = 0;
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < n; i += kSuppressThreads) own += labels[i] == label;
  *count = block_sum(own);
  if (*count == 0) return 0;
  MIXPL_SHARED(int32_t, place, 1);
  if (threadIdx.x == 0) place[0] = atomic_add(&v.used[image], *count);
  sync_block();
  const int64_t first = image * v.in.capacity + place[0];
  int32_t before = 0;
  for (int64_t base = 0; base < n && before < *count; base += kSuppressThreads * kLabelsEach) {
    const int64_t own_base = base + threadIdx.x * kLabelsEach;
    uint32_t is = 0;  // bit u: the u-th is of the class
#pragma unroll
    for (int u = 0; u < kLabelsEach; ++u)
      is |= static_cast<uint32_t>(own_base + u < n && labels[own_base + u] == label) << u;
    int32_t total;
    int64_t at = first + before + block_scan_exclusive(popcount(is), &total);
    for (; is != 0; is &= is - 1) v.members[at++] = static_cast<int32_t>(own_base + lowest_bit(is));
    before += total;
  }
  sync_block();  // what one thread wrote others read
  return first;
}

MIXPL_KERNEL __launch_bounds__(kSuppressThreads, 2) suppress_kernel(SuppressView v) {
  const int64_t image = blockIdx.y, n = v.in.count(image);
  const int thread = threadIdx.x, item = thread % kWindow, slice = thread / kWindow;
  int32_t count;
  const int64_t first = members_of(v, image, static_cast<int32_t>(blockIdx.x), n, &count);
  MIXPL_SHARED(Box, window, kWindow);
  MIXPL_SHARED(int32_t, gone, kWindow);
  MIXPL_SHARED(uint64_t, overlaps, kWindow);  // bit j: with the window's j-th, an earlier one
  MIXPL_SHARED(uint64_t, chosen, 1);
  const int32_t* members = v.members + first;
  Box* kept = v.kept + first;
  int64_t num_kept = 0;
  for (int64_t base = 0; base < count && num_kept < v.most; base += kWindow) {
    const int in_window = static_cast<int>(count - base < kWindow ? count - base : kWindow);
    if (thread < kWindow) {
      if (thread < in_window)
        window[thread] = v.in.boxes[image * v.in.capacity + members[base + thread]];
      gone[thread] = thread >= in_window;
    }
    sync_block();
    if (item < in_window) {
      const Box own = window[item];
      bool hit = false;
      const int last = static_cast<int>(num_kept) - 1;
      for (int k = slice; k <= last; k += kSlices * kAtOnce) {
        Box others[kAtOnce];
#pragma unroll
        for (int u = 0; u < kAtOnce; ++u) {
          const int other = k + u * kSlices;
          others[u] = kept[other < last ? other : last];
        }
#pragma unroll
        for (int u = 0; u < kAtOnce; ++u) hit |= suppresses(others[u], own, v.iou_thr);
      }
      if (hit) gone[item] = 1;  // whoever writes it, writes the same
    }
    {
      // Eight threads a row, eight columns each: one byte of the row's bits.
      const int row = thread / 8, column = thread % 8 * 8;
      uint32_t bits = 0;
      if (row < in_window)
        for (int j = column; j < column + 8 && j < row; ++j)
          bits |= static_cast<uint32_t>(suppresses(window[j], window[row], v.iou_thr))
                  << (j - column);
      reinterpret_cast<uint8_t*>(&overlaps[0])[thread] = static_cast<uint8_t>(bits);
    }
    sync_block();
    if (thread == 0) {
      uint64_t taken = 0;
      int64_t room = v.most - num_kept;
#pragma unroll 16
      for (int i = 0; i < kWindow; ++i) {
        const bool takes = !gone[i] && !(overlaps[i] & taken) && room > 0;
        taken |= uint64_t{takes} << i;
        room -= takes;
      }
      chosen[0] = taken;
    }
    sync_block();
    const uint64_t taken = chosen[0];
    if (thread < kWindow && (taken >> thread & 1)) {
      kept[num_kept + ones(taken & ((uint64_t{1} << thread) - 1))] = window[thread];
      v.keep[image * v.in.capacity + members[base + thread]] = 1;
    }
    num_kept += ones(taken);
    sync_block();
  }
}

constexpr int kListThreads = 512;

// The first `most` ranks that are kept. One block an image.
MIXPL_KERNEL __launch_bounds__(kListThreads)
    list_kernel(RankedView in, const uint8_t* keep, int64_t most, int32_t* ranks, int32_t* counts) {
  const int64_t image = blockIdx.x, n = in.count(image);
  int64_t before = 0;
  for (int64_t base = 0; base < n && before < most; base += kListThreads) {
    const int64_t rank = base + threadIdx.x;
    const bool is = rank < n && keep[image * in.capacity + rank];
    int32_t total;
    const int64_t at = before + block_scan_exclusive(static_cast<int32_t>(is), &total);
    if (is && at < most) ranks[image * most + at] = static_cast<int32_t>(rank);
    before += total;
  }
  if (threadIdx.x == 0) counts[image] = static_cast<int32_t>(before < most ? before : most);
}

constexpr int kVoteThreads = 128;

MIXPL_KERNEL __launch_bounds__(kVoteThreads, 2)
    vote_kernel(RankedView in, const int32_t* ranks, const int32_t* kept, int64_t most, Box* out) {
  const int64_t image = blockIdx.y, k = blockIdx.x, first = image * in.capacity;
  if (k >= kept[image]) return;
  const int64_t own = first + ranks[image * most + k], end = first + in.count(image);
  Vote vote;
  for (int64_t i = first + threadIdx.x; i < end; i += kVoteThreads)
    if (in.labels[i] == in.labels[own]) vote.add(in.boxes[own], in.boxes[i], in.scores[i]);
  vote = {block_sum(vote.weight), block_sum(vote.x1), block_sum(vote.y1), block_sum(vote.x2),
          block_sum(vote.y2)};
  if (threadIdx.x == 0) out[image * most + k] = vote.box(in.boxes[own]);
}

// Rows of one image: its count, then boxes, scores, labels of `most` places.
struct PackView {
  RankedView in;
  const int32_t* ranks;  // null: all
  const int32_t* counts;
  const Box* boxes;  // null: as ranked
  int64_t most;
  float* out;

  MIXPL_HD static int64_t row(int64_t most) { return 1 + 6 * most; }
  MIXPL_DEVICE void operator()(int64_t i) const {
    const int64_t image = i / most, k = i % most;
    float* to = out + image * row(most);
    if (k == 0) to[0] = static_cast<float>(counts[image]);
    const bool used = k < counts[image];
    const int64_t from = image * in.capacity + (!used ? 0 : ranks ? ranks[i] : k);
    const Box b = !used ? Box{0, 0, 0, 0} : boxes ? boxes[i] : in.boxes[from];
    to += 1 + 4 * k;
    to[0] = b.x1;
    to[1] = b.y1;
    to[2] = b.x2;
    to[3] = b.y2;
    to = out + image * row(most) + 1 + 4 * most + k;
    to[0] = used ? in.scores[from] : 0.0f;
    to[most] = used ? static_cast<float>(in.labels[from]) : 0.0f;  // below 2^24: exact
  }
};

/// @param kept  null: all
/// @param boxes null: as ranked
PendingDetections download(const Ranked& ranked, const Kept* kept, const float* boxes) {
  const int64_t images = ranked.images(), most = kept ? kept->most() : ranked.capacity(),
                row = PackView::row(most);
  const Tensor packed = Tensor::empty({images, row}, DType::f32, ranked.boxes.device());
  const Tensor& counts = kept ? kept->counts : ranked.counts;
  for_each(images * most, PackView{RankedView(ranked), kept ? kept->ranks.data<int32_t>() : nullptr,
                                   counts.data<int32_t>(), reinterpret_cast<const Box*>(boxes),
                                   most, packed.data<float>()});
  if (packed.numel() == 0 || most == 0) return std::vector<Detections>(images);
  const auto readback = std::make_shared<Readback>(packed.raw(), packed.nbytes());
  return PendingDetections([=] {
    const float* host = static_cast<const float*>(readback->wait());
    std::vector<Detections> out(images);
    for (int64_t n = 0; n < images; ++n) {
      const float* from = host + n * row;
      const int64_t count = static_cast<int64_t>(from[0]);
      out[n].boxes.assign(from + 1, from + 1 + 4 * count);
      out[n].scores.assign(from + 1 + 4 * most, from + 1 + 4 * most + count);
      for (int64_t k = 0; k < count; ++k)
        out[n].labels.push_back(static_cast<int32_t>(from[1 + 5 * most + k]));
    }
    return out;
  });
}

}  // namespace

Kept suppress(const Ranked& ranked, int64_t labels, float iou_thr, int64_t most) {
  const Device device = ranked.boxes.device();
  const int64_t images = ranked.images(), capacity = ranked.capacity();
  if (most < 0 || most > capacity) most = capacity;
  Kept out{Tensor::empty({images, most}, DType::i32, device),
           Tensor::empty({images}, DType::i32, device)};
  const Tensor used = Tensor::zeros({images}, DType::i32, device);
  const Tensor members = Tensor::empty({images, capacity}, DType::i32, device);
  const Tensor kept = Tensor::empty({images, capacity, 4}, DType::f32, device);
  const Tensor keep = Tensor::zeros({images, capacity}, DType::u8, device);
  const RankedView in(ranked);
  launch(suppress_kernel, dim3(grid(labels), grid(images)), dim3(kSuppressThreads), 0,
         SuppressView{in, iou_thr, most, used.data<int32_t>(), members.data<int32_t>(),
                      reinterpret_cast<Box*>(kept.data<float>()), keep.data<uint8_t>()});
  launch(list_kernel, dim3(grid(images)), dim3(kListThreads), 0, in, keep.data<uint8_t>(), most,
         out.ranks.data<int32_t>(), out.counts.data<int32_t>());
  return out;
}

Tensor vote_boxes(const Ranked& ranked, const Kept& kept) {
  const int64_t images = ranked.images(), most = kept.most();
  Tensor out = Tensor::empty({images, most, 4}, DType::f32, ranked.boxes.device());
  launch(vote_kernel, dim3(grid(most), grid(images)), dim3(kVoteThreads), 0, RankedView(ranked),
         kept.ranks.data<int32_t>(), kept.counts.data<int32_t>(), most,
         reinterpret_cast<Box*>(out.data<float>()));
  return out;
}

PendingDetections download(const Ranked& ranked, const Kept& kept, const Tensor& boxes) {
  return download(ranked, &kept, boxes.defined() ? boxes.data<float>() : nullptr);
}
PendingDetections download(const Ranked& ranked) { return download(ranked, nullptr, nullptr); }

}  // namespace mixpl::cuda
