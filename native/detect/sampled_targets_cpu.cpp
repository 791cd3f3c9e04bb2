#include <algorithm>
#include <numeric>

#include "core/parallel.h"
#include "detect/for_each_place.h"
#include "detect/sampled_targets_math.h"

namespace mixpl::cpu {
namespace {

// What is drawn from each image.
std::vector<Sampled> draw(const Tensor& assigned, const SamplerOptions& sampler,
                          const Philox& random) {
  const int64_t images = assigned.size(0), boxes = assigned.size(1);
  std::vector<Sampled> drawn(images);
  parallel_for(images, int64_t{1}, [&](int64_t n) {
    const int32_t* own = assigned.data<int32_t>() + n * boxes;
    drawn[n] = sample_boxes(std::vector<int32_t>(own, own + boxes), sampler, of_image(random, n));
  });
  return drawn;
}

}  // namespace

void mark_sampled(const Tensor& assigned, const SamplerOptions& sampler, int64_t least,
                  const Philox& random, Tensor& drawn, Tensor& count) {
  drawn.fill(0);
  int64_t sampled = 0;
  uint8_t* mark = drawn.data<uint8_t>();
  for (const Sampled& image : draw(assigned, sampler, random)) {
    for (const auto* list : {&image.positives, &image.negatives}) {
      for (int32_t i : *list) mark[i] = 1;
      sampled += std::max(static_cast<int64_t>(list->size()), least);
    }
    mark += assigned.size(1);
  }
  *count.data<float>() = static_cast<float>(std::max<int64_t>(sampled, 1));
}

void fill_anchor_targets(int64_t images, const AnchorTargetView& view) {
  for_each_place(view.pyramid, images, view);
}

void mark_inside(int64_t count, const InsideView& view) { parallel_for(count, view); }

RegionCandidates join_candidates(const Regions& proposals, const Truth& truth) {
  const int64_t images = truth.images();
  const int32_t* counts = proposals.counts.data<int32_t>();
  std::vector<int32_t> first(images);
  std::exclusive_scan(counts, counts + images, first.begin(), 0);
  int64_t most = 0;
  for (int64_t n = 0; n < images; ++n) most = std::max(most, truth.counts[n] + counts[n]);
  RegionCandidates out{Tensor::empty({images, most, 4}, DType::f32),
                       Tensor::empty({images, most}, DType::u8)};
  parallel_for(images * most,
               CandidateView{TruthView(truth), boxes_in(proposals.boxes), counts, first.data(), 0,
                             most, mutable_boxes_in(out.boxes), out.valid.data<uint8_t>()});
  return out;
}

RegionTargets draw_regions(const RegionCandidates& candidates, Tensor& assigned, const Truth& truth,
                           int64_t classes, const SamplerOptions& sampler, const Philox& random) {
  const int64_t images = truth.images(), most = assigned.size(1);
  parallel_for(images * most, OwnMatchView{TruthView(truth), most, assigned.data<int32_t>()});
  const std::vector<Sampled> drawn = draw(assigned, sampler, random);
  int64_t rows = 0;
  for (const Sampled& image : drawn)
    rows += static_cast<int64_t>(image.positives.size() + image.negatives.size());
  RegionTargets out = region_rows(rows, images, {});
  const RegionRowView view = rows_of(out, candidates, assigned, truth, classes);
  int64_t row = 0;
  for (int64_t n = 0; n < images; ++n) {
    const int64_t before = row;
    for (const auto* list : {&drawn[n].positives, &drawn[n].negatives})
      for (int32_t c : *list) view.fill(row++, n, c);
    out.regions.counts.data<int32_t>()[n] = static_cast<int32_t>(row - before);
  }
  *out.num_regions.data<float>() = static_cast<float>(std::max<int64_t>(rows, 1));
  return out;
}

void fill_region_deltas(int64_t count, const RegionDeltaView& view) { parallel_for(count, view); }

}  // namespace mixpl::cpu
