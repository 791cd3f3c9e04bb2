// What all detectors have below their heads: a backbone and a neck; and how heads see batches that
// share a graph.
#pragma once

#include <utility>
#include <vector>

#include "models/backbones/backbone.h"
#include "models/detector.h"
#include "models/necks/channel_mapper.h"
#include "models/necks/fpn.h"

namespace mixpl {

/// Parameters: backbone.*, neck.*.
template <class Neck, class NeckOptions>
class PyramidBase : public Detector {
 protected:
  PyramidBase(uint64_t seed, int64_t classes, const BackboneOptions& backbone,
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

/// Its head takes one batch after the other.
template <class Neck, class NeckOptions>
class PyramidDetector : public PyramidBase<Neck, NeckOptions> {
 protected:
  using PyramidBase<Neck, NeckOptions>::PyramidBase;
  virtual Losses losses_of(const FeatureMaps& levels, const ImageBatch& images,
                           const std::vector<Target>& targets) = 0;

 private:
  std::vector<Losses> head_losses(std::vector<FeatureMaps> pyramids,
                                  const std::vector<LabelledBatch>& batches) final {
    return this->pass_by_pass(std::move(pyramids), batches,
                              [this](const auto&... of) { return losses_of(of...); });
  }
};

/// Convolutions over the levels of an FPN, which take all batches at once, make the `Outputs` of
/// each.
template <class Outputs>
class DenseDetector : public PyramidBase<Fpn, FpnOptions> {
 protected:
  using PyramidBase::PyramidBase;
  /// @param pyramids at least one, of as many levels each
  virtual std::vector<Outputs> head_outputs(std::vector<FeatureMaps> pyramids) const = 0;
  virtual Losses losses_of(const Outputs& out, const ImageBatch& images,
                           const std::vector<Target>& targets) = 0;
  Outputs outputs_of(const ImageBatch& images) const {
    return head_outputs({pyramid_of(images)})[0];
  }

 private:
  std::vector<Losses> head_losses(std::vector<FeatureMaps> pyramids,
                                  const std::vector<LabelledBatch>& batches) final {
    return pass_by_pass(head_outputs(std::move(pyramids)), batches,
                        [this](const auto&... of) { return losses_of(of...); });
  }
};

using FpnDetector = PyramidDetector<Fpn, FpnOptions>;
using MapperDetector = PyramidDetector<ChannelMapper, ChannelMapperOptions>;

}  // namespace mixpl
