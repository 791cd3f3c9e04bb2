// RetinaNet head (Lin et al. 2017, mmdetection RetinaHead): two conv towers shared by all levels.
#pragma once

#include <vector>

#include "core/options.h"
#include "nn/conv.h"

namespace mixpl {

struct RetinaHeadOptions {
  int64_t channels = 256;
  int stacked_convs = 4;
  NormKind norm = NormKind::none;

  static RetinaHeadOptions read(const Options& options);
};

/// Per level: logits [N, H, W, A K] and deltas [N, H, W, 4 A].
struct DenseOutputs {
  std::vector<Tensor> logits, deltas;
};

class RetinaHead {
 public:
  RetinaHead(const Scope& scope, int64_t in, int64_t anchors, int64_t classes,
             const RetinaHeadOptions& options);
  DenseOutputs operator()(const std::vector<Tensor>& levels) const;

 private:
  std::vector<ConvNorm> cls_tower_, reg_tower_;
  ConvNorm cls_, reg_;
};

}  // namespace mixpl
