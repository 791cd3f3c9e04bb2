#include "core/cuda/kernel.h"
#include "detect/random_sampler_cuda.h"
#include "detect/sampled_targets_math.h"

namespace mixpl::cuda {
namespace {

struct MarkView {
  SelectionView drawn;
  int64_t boxes;
  uint8_t* marks;  // [N, boxes]
  MIXPL_DEVICE void operator()(int64_t i) const {
    const int64_t n = i / drawn.most;
    if (i % drawn.most < drawn.counts[n]) marks[n * boxes + index_of(drawn.items[i])] = 1;
  }
};

// How many were drawn from all images, at least 1; and per image, where somebody asks.
struct CountView {
  const int32_t *positives, *negatives;
  int64_t images, least;
  int32_t* counts;  // [N] or null
  float* count;
  MIXPL_DEVICE int64_t counted(int64_t own) const { return own > least ? own : least; }
  MIXPL_DEVICE void operator()(int64_t) const {
    int64_t sum = 0;
    for (int64_t n = 0; n < images; ++n) {
      if (counts) counts[n] = positives[n] + negatives[n];
      sum += counted(positives[n]) + counted(negatives[n]);
    }
    count[0] = static_cast<float>(sum > 1 ? sum : 1);
  }
};

// One thread a place: what was drawn comes in order of the candidates, positives first.
struct RowsView {
  SelectionView positives, negatives;
  int64_t places;  // of an image
  RegionRowView rows;

  MIXPL_DEVICE static int64_t before(const SelectionView& s, int64_t n, int64_t index) {
    int64_t smaller = 0;
    for (int64_t k = 0; k < s.counts[n]; ++k) smaller += index_of(s.items[n * s.most + k]) < index;
    return smaller;
  }
  MIXPL_DEVICE void operator()(int64_t i) const {
    const int64_t n = i / places, k = i % places, p = positives.counts[n];
    const bool positive = k < p;
    if (!positive && k - p >= negatives.counts[n]) return rows.leave_empty(i);
    const SelectionView& from = positive ? positives : negatives;
    const int64_t c = index_of(from.items[n * from.most + (positive ? k : k - p)]);
    rows.fill(n * places + (positive ? 0 : p) + before(from, n, c), n, c);
  }
};

}  // namespace

void mark_sampled(const Tensor& assigned, const SamplerOptions& sampler, int64_t least,
                  const Philox& random, Tensor& drawn, Tensor& count) {
  const int64_t images = assigned.size(0), boxes = assigned.size(1);
  drawn.fill(0);
  const Drawn chosen = sample_boxes(assigned, sampler, random);
  for (const Selection& s : {chosen.positives, chosen.negatives})
    for_each(images * s.most(), MarkView{SelectionView(s), boxes, drawn.data<uint8_t>()});
  for_each(
      1, CountView{chosen.positives.counts.data<int32_t>(), chosen.negatives.counts.data<int32_t>(),
                   images, least, nullptr, count.data<float>()});
}

void fill_anchor_targets(int64_t images, const AnchorTargetView& view) {
  for_each(images * view.pyramid.count(), view);
}

void mark_inside(int64_t count, const InsideView& view) { for_each(count, view); }

RegionCandidates join_candidates(const Regions& proposals, const Truth& truth) {
  const int64_t images = truth.images(), most = truth.most() + proposals.places();
  RegionCandidates out{Tensor::empty({images, most, 4}, DType::f32, truth.device()),
                       Tensor::empty({images, most}, DType::u8, truth.device())};
  for_each(images * most,
           CandidateView{TruthView(truth), boxes_in(proposals.boxes),
                         proposals.counts.data<int32_t>(), nullptr, proposals.places(), most,
                         mutable_boxes_in(out.boxes), out.valid.data<uint8_t>()});
  return out;
}

RegionTargets draw_regions(const RegionCandidates& candidates, Tensor& assigned, const Truth& truth,
                           int64_t classes, const SamplerOptions& sampler, const Philox& random) {
  const int64_t images = truth.images(), most = assigned.size(1);
  for_each(images * most, OwnMatchView{TruthView(truth), most, assigned.data<int32_t>()});
  const Drawn drawn = sample_boxes(assigned, sampler, random);
  const int64_t places = std::min(sampler.size, most);
  RegionTargets out = region_rows(images * places, images, truth.device());
  for_each(images * places, RowsView{SelectionView(drawn.positives), SelectionView(drawn.negatives),
                                     places, rows_of(out, candidates, assigned, truth, classes)});
  for_each(1,
           CountView{drawn.positives.counts.data<int32_t>(), drawn.negatives.counts.data<int32_t>(),
                     images, 0, out.regions.counts.data<int32_t>(), out.num_regions.data<float>()});
  return out;
}

void fill_region_deltas(int64_t count, const RegionDeltaView& view) { for_each(count, view); }

}  // namespace mixpl::cuda
