// A pass of loss() for what it shows, not for its losses.
#pragma once

#include <vector>

#include "models/detector.h"
#include "models/probe.h"

namespace mixpl {

/// What detector.loss() shows under the context as it is.
/// @param call names the analysis in messages
/// @param tape see Probe::tape; empty
/// @throws     ConfigError when it shows nothing; as loss() does
Probe probed_pass(const char* call, Detector& detector, const ImageBatch& images,
                  const std::vector<Target>& targets, Tape* tape = nullptr);

/// Puts the gradients of all parameters aside, and back at the end of the scope in place of what
/// gathered meanwhile.
class GradientsAside {
 public:
  explicit GradientsAside(ParameterStore& parameters);
  ~GradientsAside();
  GradientsAside(const GradientsAside&) = delete;
  GradientsAside& operator=(const GradientsAside&) = delete;

 private:
  ParameterStore& parameters_;
  std::vector<Tensor> gradients_;
};

/// What a probe saw, on the host.
struct ProbeValues {
  struct Level {
    Shape shape;
    std::vector<float> values;
  };
  struct Scores {
    int64_t classes;
    std::vector<float> values;
    std::vector<int32_t> labels, pairs;  // one of the two is empty, or there are no rows
  };
  int first_level;
  std::vector<Level> levels;
  std::vector<Scores> scores;
  bool probabilities;
};
ProbeValues values_of(const Probe& probe);

/// On the host, as f32.
std::vector<float> floats_of(const Tensor& t);

}  // namespace mixpl
