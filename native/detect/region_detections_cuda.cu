#include "detect/region_detections.h"
#include "detect/score_order.h"
#include "detect/suppression_cuda.h"

namespace mixpl::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

struct ScoreView {
  StageLogits logits;
  RegionDecoderView decode;
  int64_t regions, classes;
  int64_t places;  // of an image
  const Box* boxes;
  const int32_t* image;
  const ImageSize* sizes;
  float score_thr, min_size;
  CandidatesView out;
};

// One warp a region.
MIXPL_KERNEL __launch_bounds__(kThreads) score_kernel(ScoreView v) {
  const int64_t r = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (r >= v.regions || v.image[r] < 0) return;  // whole warps
  const int64_t n = v.image[r], first = r * (v.classes + 1);
  float most = -INFINITY;
  for (int64_t c = lane(); c <= v.classes; c += 32) most = greater(v.logits[first + c], most);
  most = warp_max(most);
  double sum = 0;
  for (int64_t c = lane(); c <= v.classes; c += 32)
    sum += static_cast<double>(expf(v.logits[first + c] - most));
  sum = warp_sum(sum);
  for (int64_t base = 0; base < v.classes; base += 32) {
    const int64_t c = base + lane();
    bool has = c < v.classes;
    Candidate candidate{};
    if (has) {
      const float score = static_cast<float>(expf(v.logits[first + c] - most) / sum);
      has = score > v.score_thr;
      if (has) {
        const Box box = clip_box(v.decode(r, c, v.boxes[r]), v.sizes[n]);
        has = detectable(box, v.min_size);
        candidate = {uint64_t{descending_key(score)} << 32,
                     static_cast<uint64_t>(r % v.places * v.classes + c), box, score,
                     static_cast<int32_t>(c)};
      }
    }
    v.out.add_by_warp(n, has, candidate);
  }
}

}  // namespace

PendingDetections detect_regions(const Regions& regions, const std::vector<Tensor>& logits,
                                 const RegionDecoder& decoder, const Tensor& sizes,
                                 const RegionDetectionOptions& o) {
  const int64_t images = regions.images(), classes = logits[0].size(1) - 1;
  const Device device = regions.device();
  if (images == 0) return {};
  // Scores of a region add up to 1: not many classes can exceed the threshold.
  const double above = o.score_thr > 0 ? 1.0 / static_cast<double>(o.score_thr) + 1 : INFINITY;
  const int64_t each = above < static_cast<double>(classes) ? static_cast<int64_t>(above) : classes;
  const Candidates candidates(images, regions.places() * each, device);
  launch(score_kernel, dim3(static_cast<unsigned>((regions.size() + kWarps - 1) / kWarps)),
         dim3(kThreads), 0,
         ScoreView{StageLogits(logits), RegionDecoderView(decoder), regions.size(), classes,
                   regions.places(), reinterpret_cast<const Box*>(regions.boxes.data<float>()),
                   regions.image.data<int32_t>(), sizes_in(sizes), o.score_thr, o.min_size,
                   candidates.view()});
  const Ranked ranked = rank_candidates(candidates);
  return download(ranked, suppress(ranked, classes, o.nms_iou, o.max_per_image));
}

}  // namespace mixpl::cuda
