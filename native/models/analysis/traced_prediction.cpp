#include "models/analysis/traced_prediction.h"

#include <algorithm>
#include <cstring>

#include "core/context.h"
#include "core/philox.h"

namespace mixpl {
namespace {

// Pixels of a seed: numbers of a normalised picture's size.
TracedPrediction trace_of(Detector& detector, const Shape& shape, InputSize size, uint64_t seed) {
  Tensor pixels = Tensor::empty(shape, DType::f32);
  const Philox random{seed, 0};
  for (int64_t i = 0; i < pixels.numel(); ++i) pixels.data<float>()[i] = 4 * random.uniform(i) - 2;
  TracedPrediction traced;
  traced.input = traced.trace.number_of(pixels);
  Context context = Context::current();
  context.trace = &traced.trace;
  const ContextScope scope(context);
  detector.predict({pixels, {size}, {size}}).get();
  return traced;
}

bool same_steps(const TraceStep& a, const TraceStep& b) {
  return a.op == b.op && a.inputs == b.inputs && a.outputs == b.outputs && a.numbers == b.numbers;
}

}  // namespace

TracedPrediction traced_prediction(Detector& detector, int64_t height, int64_t width,
                                   InputSize size) {
  const Shape shape{1, height, width, 3};
  TracedPrediction traced = trace_of(detector, shape, size, 1);
  const TracedPrediction other = trace_of(detector, shape, size, 2);
  const auto refuse = [](const std::string& what) {
    throw ConfigError(
        str("trace: the detector must be made of steps that can be written down, ", what));
  };
  const auto &steps = traced.trace.steps(), &others = other.trace.steps();
  if (steps.empty()) refuse("got one of none");
  if (steps.size() != others.size() ||
      !std::equal(steps.begin(), steps.end(), others.begin(), same_steps))
    refuse("got one whose steps depend on the image");
  // What depends on the picture although no step made it comes of one that was not noted.
  for (const auto& [source, a] : traced.trace.sources()) {
    if (source == traced.input) continue;
    const Tensor& b = other.trace.sources().at(source);
    if (a.shape() == b.shape() && a.dtype() == b.dtype() &&
        std::memcmp(a.raw(), b.raw(), a.nbytes()) == 0)
      continue;
    for (const TraceStep& step : steps)
      if (std::find(step.inputs.begin(), step.inputs.end(), source) != step.inputs.end())
        refuse(str("got one before '", step.op, "' that cannot"));
  }
  return traced;
}

}  // namespace mixpl
