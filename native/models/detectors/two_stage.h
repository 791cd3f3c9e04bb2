// What Faster and Cascade R-CNN share: backbone, pyramid, proposals, features of regions.
#pragma once

#include <vector>

#include "models/backbones/backbone.h"
#include "models/heads/roi_head.h"
#include "models/heads/rpn_head.h"
#include "models/necks/fpn.h"

namespace mixpl {

struct TwoStageOptions {
  Numerics numerics;
  int64_t classes;
  BackboneOptions backbone;
  FpnOptions neck;
  RpnOptions rpn;
  RegionFeatures features;
  RegionDetectionOptions test;

  /// Everything but "roi". @throws ConfigError
  TwoStageOptions(const Options& options, const RpnOptions& rpn_defaults);
};

class TwoStage : public Detector {
 protected:
  TwoStage(const TwoStageOptions& options, uint64_t seed);

  /// The first stage of a training pass.
  struct FirstStage {
    std::vector<Tensor> levels;
    Tensor loss_cls, loss_bbox;
    Regions proposals;
    Truth truth;
  };
  FirstStage first_stage(const ImageBatch& images, const std::vector<Target>& targets);
  /// Random numbers of a stage, 1 …; image n has a stream of its own.
  static Philox random_of(int stage);

  Backbone backbone_;
  Fpn neck_;
  RpnHead rpn_;
};

}  // namespace mixpl
