// What Faster and Cascade R-CNN share: backbone, pyramid, proposals, features of regions.
#pragma once

#include <vector>

#include "models/heads/roi_head.h"
#include "models/heads/rpn_head.h"
#include "models/pyramid_detector.h"

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

/// What the first stage's convolutions make of a batch.
struct FirstStageMaps {
  FeatureMaps levels;
  RpnMaps rpn;
};

class TwoStage : public DenseDetector<FirstStageMaps> {
 protected:
  TwoStage(const TwoStageOptions& options, uint64_t seed);

  /// The first stage of a training pass.
  struct FirstStage {
    Tensor loss_cls, loss_bbox;
    Regions proposals;
    Truth truth;
  };
  FirstStage first_stage(const FirstStageMaps& maps, const ImageBatch& images,
                         const std::vector<Target>& targets);
  /// For detections.
  Regions proposals(const FirstStageMaps& maps, const ImageBatch& images);
  /// Random numbers of a stage, 1 …; image n has a stream of its own.
  static Philox random_of(int stage);

 private:
  std::vector<FirstStageMaps> head_outputs(std::vector<FeatureMaps> pyramids) const override;

  RpnHead rpn_;
};

}  // namespace mixpl
