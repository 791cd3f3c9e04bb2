#include "models/analysis/probed_pass.h"

#include "core/context.h"

namespace mixpl {

Probe probed_pass(const char* call, Detector& detector, const ImageBatch& images,
                  const std::vector<Target>& targets, Tape* tape) {
  Probe probe;
  probe.tape = tape;
  Context context = Context::current();
  context.probe = &probe;
  const ContextScope scope(context);
  detector.loss(images, targets);
  if (probe.levels.empty() || probe.scores.empty())
    throw ConfigError(str(call,
                          ": the detector must show its pyramid and class scores to a probe, "
                          "got one that does not"));
  return probe;
}

GradientsAside::GradientsAside(ParameterStore& parameters) : parameters_(parameters) {
  for (Parameter& p : parameters.all()) {
    gradients_.push_back(p.value.grad());
    p.value.set_grad(Tensor());
  }
}

GradientsAside::~GradientsAside() {
  auto gradient = gradients_.begin();
  for (Parameter& p : parameters_.all()) p.value.set_grad(*gradient++);
}

ProbeValues values_of(const Probe& probe) {
  const auto integers = [](const Tensor& t) {
    return t.defined() ? t.to_vector<int32_t>() : std::vector<int32_t>();
  };
  ProbeValues out{probe.first_level, {}, {}, probe.probabilities};
  for (const Tensor& level : probe.levels) out.levels.push_back({level.shape(), floats_of(level)});
  for (const ShownScores& s : probe.scores)
    out.scores.push_back({s.classes(), floats_of(s.logits), integers(s.labels), integers(s.pairs)});
  return out;
}

std::vector<float> floats_of(const Tensor& t) { return t.to(DType::f32).to_vector<float>(); }

}  // namespace mixpl
