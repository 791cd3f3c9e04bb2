#pragma once

#include <vector>

#include "core/tensor.h"
#include "detect/anchors.h"
#include "detect/box_coder.h"
#include "detect/max_iou_assigner.h"

namespace mixpl {

/// What an anchor-based dense head should have said; A_l = anchors of level l.
struct DenseTargets {
  std::vector<Tensor> labels;  // per level i32 [N, A_l]: 0 … C-1 object, C background, -1 ignored
  std::vector<Tensor> boxes;   // per level f32 [N, A_l, 4]: encoded box, 0 where there is none
  std::vector<Tensor> weights;  // per level f32 [N, A_l]: 1 where an anchor has a box, else 0
  Tensor positives;             // f32 [N], see count_positives and average_factor
};

/// Assigns the anchors of all levels together, image by image.
///
/// @param valid u8 [N, A], undefined = all
/// @param coder nullptr: `boxes` are the boxes themselves, xyxy
/// @throws      ShapeError, DTypeError, DeviceError
/// @source      mmdetection AnchorHead.get_targets with PseudoSampler
DenseTargets assign_dense_targets(const Anchors& anchors, const Truth& truth, const Tensor& valid,
                                  int64_t classes, const DeltaCoder* coder,
                                  const MaxIouOptions& options);

/// torchvision's mean over the images of each image's loss over its positives: multiplies the
/// weights of image n by 1 / (N max(positives, 1)).
/// @return the factors, f32 [N]
Tensor weigh_images(DenseTargets& targets);

struct DenseTargetView {
  Pyramid pyramid;
  const Box* anchors;
  const int32_t* assigned;
  TruthView truth;
  DeltaCoder coder;
  bool encoded;
  int32_t classes;
  PerLevel<int32_t> labels;
  PerLevel<Delta> boxes;
  PerLevel<float> weights;

  MIXPL_HD void operator()(const Place& p) const {
    const int32_t box = assigned[p.image * pyramid.count() + p.in_row];
    const int32_t first = truth.begin(p.image);
    labels[p.level][p.at] = label_of(box, truth.labels + first, classes);
    Delta target{0, 0, 0, 0};
    if (box >= 0) {
      const Box b = truth.boxes[first + box];
      target = encoded ? coder.encode(anchors[p.in_row], b) : Delta{b.x1, b.y1, b.x2, b.y2};
    }
    boxes[p.level][p.at] = target;
    weights[p.level][p.at] = box >= 0 ? 1.0f : 0.0f;
  }
  MIXPL_HD void operator()(int64_t i) const { (*this)(place_of(pyramid, i)); }
};

/// weights [N, each] *= factors [N], which come from the positives of each image.
struct ImageFactorView {
  const float* positives;
  int64_t images;
  float* factors;
  MIXPL_HD void operator()(int64_t n) const {
    factors[n] = 1.0f / (greater(positives[n], 1.0f) * static_cast<float>(images));
  }
};
struct ImageWeightView {
  const float* factors;
  int64_t each;
  float* weights;
  MIXPL_HD void operator()(int64_t i) const { weights[i] *= factors[i / each]; }
};

namespace cpu {
void fill_dense_targets(int64_t images, const DenseTargetView& view);
void weigh_images(const Tensor& positives, const std::vector<Tensor>& weights, Tensor& factors);
}  // namespace cpu
namespace cuda {
void fill_dense_targets(int64_t images, const DenseTargetView& view);
void weigh_images(const Tensor& positives, const std::vector<Tensor>& weights, Tensor& factors);
}  // namespace cuda

}  // namespace mixpl
