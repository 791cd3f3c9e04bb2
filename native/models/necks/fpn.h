// Feature pyramid network (Lin et al. 2017), names as mmdetection's FPN.
#pragma once

#include <vector>

#include "core/options.h"
#include "models/feature_maps.h"
#include "nn/conv.h"

namespace mixpl {

struct FpnOptions {
  enum class Extra { none, on_input, on_output };  // where P6 comes from: nothing, C5, or P5
  int64_t channels = 256;
  int first_level = 3;  // C3; 2 for two-stage detectors
  int num_outputs = 5;
  Extra extra = Extra::on_input;
  bool relu_before_extra = false;      // ReLU between P6 and P7
  NormKind norm = NormKind::none;      // of all its convolutions: none, bn or gn
  bool norm_of_extra = true;           // false: P6 and P7 have none (torchvision)
  Init init = init::xavier_uniform();  // of all weights; not an option of the configuration

  static FpnOptions read(const Options& options, const FpnOptions& defaults);
};

class Fpn {
 public:
  /// @param in channels of C2 … C5
  Fpn(const Scope& scope, const std::vector<int64_t>& in, const FpnOptions& options);

  /// C2 … C5 of some batches -> P_first …, num_outputs levels of each
  std::vector<FeatureMaps> operator()(const std::vector<FeatureMaps>& c) const;
  int64_t channels() const { return options_.channels; }

 private:
  FpnOptions options_;
  std::vector<ConvNorm> lateral_, output_, extra_;
};

}  // namespace mixpl
