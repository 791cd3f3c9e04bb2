// What queries start from and end as, once for both devices.
#pragma once

#include "detect/queries.h"
#include "ops/boxes_from_centers/boxes_from_centers_math.h"
#include "ops/refined_boxes/refined_boxes_math.h"

namespace mixpl {

MIXPL_HD bool has_nan(Box b) {
  return b.x1 != b.x1 || b.y1 != b.y1 || b.x2 != b.x2 || b.y2 != b.y2;
}

/// Whether anything is left of a box that was clipped.
MIXPL_HD bool has_area(Box b) { return b.x2 > b.x1 && b.y2 > b.y1; }

/// Fills the slots of the denoising queries.
struct DenoisingView {
  static constexpr float kEps = 1e-3f;  // of the inverse sigmoid

  TruthView truth;
  const ImageSize* sizes;
  int64_t classes;
  int64_t most;   // objects of an image: half a group
  int64_t slots;  // of an image
  float label_chance, box_noise;
  Philox random;
  int32_t* labels;
  CenterBox* references;
  int32_t* target_labels;
  CenterBox* target_boxes;
  float* weights;
  int32_t* objects;

  DenoisingView(const Truth& t, const Tensor& sizes, int64_t classes, const DenoisingOptions& o,
                const Philox& random, const DenoisingQueries& out)
      : truth(t),
        sizes(sizes_in(sizes)),
        classes(classes),
        most(out.group_size / 2),
        slots(out.count()),
        label_chance(0.5f * o.label_noise),
        box_noise(o.box_noise),
        random(random),
        labels(out.labels.data<int32_t>()),
        references(reinterpret_cast<CenterBox*>(out.references.data<float>())),
        target_labels(out.targets.labels.data<int32_t>()),
        target_boxes(reinterpret_cast<CenterBox*>(out.targets.boxes.data<float>())),
        weights(out.targets.weights.data<float>()),
        objects(out.targets.objects.data<int32_t>()) {}

  /// Slot i of all images'.
  MIXPL_HD void operator()(int64_t i) const {
    const int64_t image = i / slots, group = i % slots / (2 * most), within = i % (2 * most);
    const bool negative = within >= most;
    const int64_t g = negative ? within - most : within;
    const bool used = g < truth.count(image), learns = used && !negative;
    const int32_t object = used ? truth.begin(image) + static_cast<int32_t>(g) : -1;
    const Box box = used ? shares_of(truth.boxes[object], sizes[image]) : Box{0, 0, 0, 0};
    const int32_t label = used ? truth.labels[object] : -1;

    target_labels[i] = learns ? label : static_cast<int32_t>(classes);
    target_boxes[i] = learns ? center_of_shares(box) : CenterBox{0, 0, 0, 0};
    weights[i] = learns ? 1.0f : 0.0f;
    objects[i] = learns ? object : -1;
    if (!used) {
      labels[i] = -1;
      references[i] = {0.5f, 0.5f, 0.5f, 0.5f};
      return;
    }
    // Where a slot lies depends on the image that has most objects; where its numbers come from
    // does not. Object indices are below 2^29.
    const uint64_t at = static_cast<uint64_t>(image) << 47 | static_cast<uint64_t>(group) << 31 |
                        static_cast<uint64_t>(g) << 2 | static_cast<uint64_t>(negative) << 1;
    const auto draw = random.block(at), shift = random.block(at | 1);
    labels[i] = unit(draw[0]) < label_chance
                    ? static_cast<int32_t>(uint64_t{draw[1]} * static_cast<uint64_t>(classes) >> 32)
                    : label;
    const float w = box.x2 - box.x1, h = box.y2 - box.y1;
    const Box moved = {noisy(box.x1, w, draw[2], shift[0], negative),
                       noisy(box.y1, h, draw[2] >> 1, shift[1], negative),
                       noisy(box.x2, w, draw[2] >> 2, shift[2], negative),
                       noisy(box.y2, h, draw[2] >> 3, shift[3], negative)};
    const CenterBox b = center_of_shares(moved);
    references[i] = {held(b.cx), held(b.cy), held(b.w), held(b.h)};
  }

 private:
  /// In (0, 1), as Philox::uniform.
  MIXPL_HD static float unit(uint32_t word) {
    return (static_cast<float>(word >> 8) + 0.5f) * (1.0f / 16777216.0f);
  }
  MIXPL_HD float noisy(float corner, float side, uint32_t sign, uint32_t shift,
                       bool negative) const {
    const float a = unit(shift) + (negative ? 1.0f : 0.0f);
    const float x = corner + (sign & 1u ? a : -a) * side * 0.5f * box_noise;
    return lesser(greater(x, 0.0f), 1.0f);
  }
  /// sigmoid(inverse_sigmoid(share)).
  MIXPL_HD static float held(float share) {
    const Odds odds = odds_of(share, kEps);
    return odds.for_it / (odds.for_it + odds.against);
  }
};

}  // namespace mixpl
