// What all detectors have below their heads: a backbone and a neck.
#pragma once

#include "models/backbones/backbone.h"
#include "models/detector.h"
#include "models/necks/channel_mapper.h"
#include "models/necks/fpn.h"

namespace mixpl {

/// Parameters: backbone.*, neck.*.
template <class Neck, class NeckOptions>
class PyramidDetector : public Detector {
 protected:
  PyramidDetector(uint64_t seed, int64_t classes, const BackboneOptions& backbone,
                  const NeckOptions& neck)
      : backbone_(root(seed).child("backbone"), backbone, neck.first_level),
        neck_(root(seed).child("neck"), backbone_.channels(), neck) {
    num_classes_ = classes;
  }
  Scope root(uint64_t seed) { return Scope(parameters_, seed); }
  std::vector<FeatureMaps> pyramids(const std::vector<Tensor>& batches) const final {
    return neck_(backbone_(batches));
  }

 private:
  Backbone backbone_;
  Neck neck_;
};

using FpnDetector = PyramidDetector<Fpn, FpnOptions>;
using MapperDetector = PyramidDetector<ChannelMapper, ChannelMapperOptions>;

}  // namespace mixpl
