#include "models/detector.h"

#include "models/detectors/detectors.h"

namespace mixpl {

std::unique_ptr<Detector> create_detector(const std::string& json, uint64_t seed) {
  const Options options(json, "model");
  const std::string type = options.text("type", "retinanet");
  std::unique_ptr<Detector> detector;
  if (type == "retinanet")
    detector = create_retinanet(options, seed);
  else
    throw ConfigError(str("model.type must be 'retinanet', got '", type, "'"));
  options.finish();
  return detector;
}

}  // namespace mixpl
