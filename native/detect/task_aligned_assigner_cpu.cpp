#include <algorithm>
#include <vector>

#include "detect/for_each_place.h"
#include "detect/task_aligned_assigner.h"

namespace mixpl::cpu {
namespace {

struct Candidate {
  Place place;
  AlignView::Fit own;
};

bool better(const Candidate& a, const Candidate& b) {
  return a.own.fit != b.own.fit ? a.own.fit > b.own.fit : a.place.in_row < b.place.in_row;
}

std::vector<Candidate> candidates_of(const AlignView& view, int32_t box) {
  const int64_t image = view.truth.image_of(box, view.images);
  const Box want = view.truth.boxes[box];
  std::vector<Candidate> found;
  for (int level = 0; level < view.pyramid.levels; ++level) {
    const int64_t first = view.pyramid.first[level], size = view.pyramid.size(level);
    for (int64_t i = 0; i < size; ++i) {
      const Place place{image, first + i, i, image * size + i, level};
      const AlignView::Fit own = view.fit_of(place, box);
      if (own.fit > 0) found.push_back({place, own});
    }
  }
  const int64_t top = view.options.top;
  if (static_cast<int64_t>(found.size()) > top) {
    std::nth_element(found.begin(), found.begin() + top, found.end(), better);
    found.resize(top);
  }
  std::erase_if(
      found, [&](const Candidate& c) { return !holds_centre(want, view.anchors[c.place.in_row]); });
  return found;
}

// Who gets the contested anchors of an image, boxes in order, and what quality they have.
void resolve(const AlignView& view, int64_t image, const std::vector<Candidate>* candidates) {
  const int64_t count = view.pyramid.count();
  int32_t* assigned = view.assigned + image * count;
  const int32_t boxes = view.truth.count(image);
  std::vector<float> best_iou(boxes ? count : 0, 0.0f);
  for (int32_t g = 0; g < boxes; ++g)
    for (const Candidate& c : candidates[g])
      if (c.own.iou > best_iou[c.place.in_row]) {
        best_iou[c.place.in_row] = c.own.iou;
        assigned[c.place.in_row] = g;
      }
  for (int32_t g = 0; g < boxes; ++g) {
    float most_fit = 0, most_iou = 0;
    for (const Candidate& c : candidates[g])
      if (assigned[c.place.in_row] == g) {
        most_fit = greater(most_fit, c.own.fit);
        most_iou = greater(most_iou, c.own.iou);
      }
    for (const Candidate& c : candidates[g])
      if (assigned[c.place.in_row] == g)
        view.quality[c.place.level][c.place.at] = AlignView::quality_of(c.own, most_fit, most_iou);
  }
}

}  // namespace

void assign_task_aligned(const AlignView& view, int64_t boxes) {
  std::vector<std::vector<Candidate>> candidates(boxes);
  parallel_for(boxes, int64_t{1},
               [&](int64_t g) { candidates[g] = candidates_of(view, static_cast<int32_t>(g)); });
  for_each_place(view.pyramid, view.images, [&](const Place& p) {
    view.assigned[p.image * view.pyramid.count() + p.in_row] =
        view.is_valid(p) ? kNegative : kIgnored;
    view.quality[p.level][p.at] = 0;
  });
  parallel_for(view.images, int64_t{1}, [&](int64_t image) {
    resolve(view, image, candidates.data() + view.truth.begin(image));
  });
}

}  // namespace mixpl::cpu
