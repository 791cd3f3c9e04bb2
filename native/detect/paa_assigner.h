#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor.h"
#include "detect/anchors.h"
#include "detect/box_coder.h"
#include "detect/max_iou_assigner.h"
#include "ops/focal_loss/focal_loss.h"
#include "ops/focal_loss/focal_loss_math.h"
#include "ops/iou_loss/iou_loss_math.h"

namespace mixpl {

struct PaaCostOptions {
  DeltaCoder coder;
  FocalLossOptions focal;
  float box_weight = 1.3f;
};

/// What a head's outputs at an anchor cost as the box that the anchor was assigned to: focal
/// loss over all classes + box_weight GIoU loss of the decoded box.
///
/// @param logits   per level f32|bf16 [N, H, W, A C], deltas [N, H, W, A 4]
/// @param truth    labels in 0 … C-1
/// @param assigned i32 [N, A]: a box of the image, or < 0
/// @return         f32 [N, A], 0 where there is no box
/// @throws         ShapeError, DTypeError, DeviceError
/// @source         mmdetection PAAHead.get_pos_loss
Tensor paa_costs(const std::vector<Tensor>& logits, const std::vector<Tensor>& deltas,
                 const Anchors& anchors, const Truth& truth, const Tensor& assigned,
                 int64_t classes, const PaaCostOptions& options);

/// How many of rising losses belong to the better part: a mixture of two Gaussians is fitted to
/// them (expectation maximisation from the means `least loss` and `largest loss`, weights 1/2 and
/// precisions 1; until the mean log-likelihood changes by less than 1e-3, 100 rounds at most; 1e-6
/// is added to variances). Those whose likelier component is the first are taken in rising order,
/// up to the one of largest density under the mixture (the first on ties).
///
/// @param losses rising, finite, at least 2
/// @return       their places in `losses`
/// @source       Kim and Lee 2020, arXiv:2007.08103; mmdetection PAAHead.gmm_separation_scheme;
///               scikit-learn GaussianMixture (which computes f32 losses in f32, this in f64)
std::vector<int32_t> better_part(const std::vector<double>& losses);

/// Probabilistic anchor assignment, second step: of each box's anchors the top_k of least loss on
/// every level (the lower index on ties) are candidates, of whose losses better_part picks; what is
/// not picked becomes kNegative. A box with less than two candidates keeps none. An anchor whose
/// loss is not finite is no candidate.
///
/// @param assigned i32 [N, A]: a box of the image, kNegative or kIgnored
/// @param losses   f32 [N, A]; looked at where there is a box
/// @return         i32 [N, A]
/// @throws         ShapeError, DTypeError, DeviceError
/// @source         mmdetection PAAHead.paa_reassign
Tensor select_paa(const Pyramid& pyramid, const Truth& truth, const Tensor& assigned,
                  const Tensor& losses, int64_t top_k);

template <typename T>
struct PaaCostView {
  Pyramid pyramid;
  PerLevel<const T> logits, deltas;
  const Box* anchors;
  TruthView truth;
  const int32_t* assigned;
  int64_t classes;
  PaaCostOptions options;
  float* costs;

  MIXPL_HD void operator()(const Place& p) const {
    const int64_t at = p.image * pyramid.count() + p.in_row;
    costs[at] = assigned[at] >= 0 ? cost(p, truth.begin(p.image) + assigned[at]) : 0.0f;
  }
  MIXPL_HD void operator()(int64_t i) const { (*this)(place_of(pyramid, i)); }

  MIXPL_HD float cost(const Place& p, int32_t box) const {
    const T* x = logits[p.level] + p.at * classes;
    const T* d = deltas[p.level] + p.at * 4;
    const FocalLossOptions& focal = options.focal;
    double loss = 0;
    for (int64_t c = 0; c < classes; ++c) {
      const float logit = float(x[c]);
      const bool own = truth.labels[box] == c;
      loss += (own ? focal.alpha : 1 - focal.alpha) *
              focal_term<-1>(own ? logit : -logit, focal.gamma).loss;
    }
    const Box found = options.coder.decode(anchors[p.in_row],
                                           {float(d[0]), float(d[1]), float(d[2]), float(d[3])});
    const Box own = truth.boxes[box];
    const float pred[4] = {found.x1, found.y1, found.x2, found.y2};
    const float want[4] = {own.x1, own.y1, own.x2, own.y2};
    constexpr float kEps = 1e-7f;  // IouLossOptions'
    return static_cast<float>(loss +
                              options.box_weight * iou_term(pred, want, IouKind::giou, kEps).loss);
  }
};

struct PaaView {
  Pyramid pyramid;
  TruthView truth;
  int64_t images, top_k;
  const int32_t* assigned;
  const float* losses;
  int32_t* kept;

  /// Whether an anchor of all levels in a row is a candidate of a box of its image.
  MIXPL_HD bool is_candidate(int64_t image, int64_t i, int32_t box) const {
    const int64_t at = image * pyramid.count() + i;
    return assigned[at] == box && std::isfinite(losses[at]);
  }
};

namespace cpu {
void fill_paa_costs(const std::vector<Tensor>& logits, const std::vector<Tensor>& deltas,
                    const Anchors& anchors, const Truth& truth, const Tensor& assigned,
                    int64_t classes, const PaaCostOptions& options, Tensor& costs);
/// @param boxes of all images
void select_paa(const PaaView& view, int64_t boxes);
}  // namespace cpu
namespace cuda {
void fill_paa_costs(const std::vector<Tensor>& logits, const std::vector<Tensor>& deltas,
                    const Anchors& anchors, const Truth& truth, const Tensor& assigned,
                    int64_t classes, const PaaCostOptions& options, Tensor& costs);
void select_paa(const PaaView& view, int64_t boxes);
}  // namespace cuda

}  // namespace mixpl
