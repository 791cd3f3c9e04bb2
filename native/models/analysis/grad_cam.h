// Where a detector looks for what it is to find: Grad-CAM on a level of its pyramid.
#pragma once

#include <cstdint>
#include <vector>

#include "models/detector.h"

namespace mixpl {

struct GradCam {
  int level = 0;                  // 3: P3
  int64_t height = 0, width = 0;  // of the level, padding included
  std::vector<float> heat;        // [height, width], >= 0
  int64_t rows = 0;               // anchors, points, regions or queries that were to find an object
  double score = 0;               // sum of their logits for its class
};

/// Of every image: y = the sum of the class logits of the rows that were assigned to an object of
/// `targets`, each for its object's class; a_c = mean over the level's cells of dy / dA_c, A the
/// level's features as the head reads them; heat = max(sum over channels of a_c A_c, 0). An image
/// without such a row has a heat of 0.
///
/// Every detector serves: dense ones by all levels' anchors or points (CenterNet's by the cells
/// that are positive for a class), two-stage ones by the regions of the (last) second stage, those
/// with queries by the last layer's.
/// The detector runs under the context as it is; gradients of its parameters stay as they were.
/// @param level which, 3 for P3; 0: of each image the one whose gradient has the largest L1 norm
/// @throws      RangeError (a level that is not there), DivergedError (a logit that is not finite);
///              as loss() does
/// @source      Selvaraju et al. 2017, arXiv:1610.02391, eq. 1 and 2; the paper does not say which
///              layer and score it takes
std::vector<GradCam> grad_cam(Detector& detector, const ImageBatch& images,
                              const std::vector<Target>& targets, int64_t level);

}  // namespace mixpl
