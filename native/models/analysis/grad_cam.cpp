#include "models/analysis/grad_cam.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/parallel.h"
#include "models/analysis/probed_pass.h"

namespace mixpl {
namespace {

constexpr const char* kCall = "gradCam";

/// A score's logit, and the derivative of that by the score.
struct Logit {
  double value, slope;
};
Logit logit_of(float score, bool is_probability) {
  if (!is_probability) return {score, 1};
  const double p = std::clamp(static_cast<double>(score), 1e-6, 1 - 1e-6);
  return {std::log(p / (1 - p)), 1 / (p * (1 - p))};
}

/// Where rows say that an object is: f(row, class), each pair once.
template <typename F>
void for_each_positive(const ShownScores& scores, int64_t objects, F&& f) {
  if (scores.labels.defined()) {
    const std::vector<int32_t> labels = scores.labels.to_vector<int32_t>();
    for (size_t row = 0; row < labels.size(); ++row)
      if (labels[row] >= 0 && labels[row] < objects) f(static_cast<int64_t>(row), labels[row]);
    return;
  }
  const std::vector<int32_t> flat = scores.pairs.to_vector<int32_t>();
  std::vector<std::pair<int32_t, int32_t>> pairs;
  for (size_t i = 0; i < flat.size(); i += 2)
    if (flat[i] >= 0) pairs.emplace_back(flat[i], flat[i + 1]);
  std::sort(pairs.begin(), pairs.end());
  pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
  for (const auto& [row, label] : pairs) f(row, label);
}

/// What goes back from the scores of one level, dy / dscores; adds y and its rows to the images'.
Tensor seed_of(const ShownScores& scores, int64_t objects, bool probabilities,
               std::vector<GradCam>& cams) {
  const std::vector<float> values = floats_of(scores.logits);
  const std::vector<int32_t> image =
      scores.image.defined() ? scores.image.to_vector<int32_t>() : std::vector<int32_t>();
  const int64_t k = scores.classes(), rows = static_cast<int64_t>(values.size()) / k,
                each = rows / static_cast<int64_t>(cams.size());
  std::vector<float> seed(values.size());
  for_each_positive(scores, objects, [&](int64_t row, int32_t label) {
    const Logit logit = logit_of(values[row * k + label], probabilities);
    seed[row * k + label] = static_cast<float>(logit.slope);
    GradCam& cam = cams[image.empty() ? row / each : image[row]];
    cam.rows++;
    cam.score += logit.value;
  });
  return Tensor::from(seed, scores.logits.shape(), scores.logits.device())
      .to(scores.logits.dtype());
}

/// The gradient of a level; empty where none reached it.
std::vector<float> gradient_of(const Tensor& level) {
  return level.grad().defined() ? floats_of(level.grad()) : std::vector<float>();
}

double l1_norm(const std::vector<float>& gradient, int64_t image, int64_t images) {
  const int64_t size = static_cast<int64_t>(gradient.size()) / images;
  return parallel_sum(size, [&](int64_t i) { return std::abs(gradient[image * size + i]); });
}

/// @param values, gradient of one level, [N, H, W, C]
std::vector<float> heat_of(const std::vector<float>& values, const std::vector<float>& gradient,
                           const Shape& shape, int64_t image) {
  const int64_t cells = shape[1] * shape[2], channels = shape[3], first = image * cells * channels;
  std::vector<float> heat(cells);
  if (gradient.empty()) return heat;
  std::vector<double> weights(channels);
  for (int64_t i = 0; i < cells; ++i)
    for (int64_t c = 0; c < channels; ++c) weights[c] += gradient[first + i * channels + c];
  for (double& weight : weights) weight /= static_cast<double>(cells);
  parallel_for(cells, int64_t{64}, [&](int64_t i) {
    double sum = 0;
    for (int64_t c = 0; c < channels; ++c) sum += weights[c] * values[first + i * channels + c];
    heat[i] = static_cast<float>(std::max(sum, 0.0));
  });
  return heat;
}

}  // namespace

std::vector<GradCam> grad_cam(Detector& detector, const ImageBatch& images,
                              const std::vector<Target>& targets, int64_t level) {
  if (images.pixels.size(0) == 0) return {};
  const GradientsAside aside(detector.parameters());
  Tape tape;
  const Probe probe = probed_pass(kCall, detector, images, targets, &tape);
  const int64_t first = probe.first_level,
                last = first + static_cast<int64_t>(probe.levels.size()) - 1;
  if (level != 0 && (level < first || level > last))
    throw RangeError(str(kCall, ": level must be a level of the pyramid, P", first, " to P", last,
                         ", got P", level));

  const int64_t count = images.pixels.size(0);
  std::vector<GradCam> cams(count);
  std::vector<Tensor> roots, seeds;
  for (const ShownScores& scores : probe.scores) {
    if (scores.logits.numel() == 0) continue;
    roots.push_back(scores.logits);
    seeds.push_back(seed_of(scores, detector.num_classes(), probe.probabilities, cams));
  }
  for (int64_t n = 0; n < count; ++n)
    if (!std::isfinite(cams[n].score))
      throw DivergedError(str(kCall, ": class logits must be finite, got a sum of ", cams[n].score,
                              " for image ", n));
  tape.backward(roots, std::move(seeds));

  std::vector<std::vector<float>> gradients, values(probe.levels.size());
  for (int64_t l = first; l <= last; ++l)
    gradients.push_back(level == 0 || level == l ? gradient_of(probe.levels[l - first])
                                                 : std::vector<float>());
  for (int64_t n = 0; n < count; ++n) {
    int64_t chosen = std::max<int64_t>(level - first, 0);
    if (level == 0) {
      double most = 0;
      for (int64_t l = 0; l <= last - first; ++l) {
        const double norm = l1_norm(gradients[l], n, count);
        if (norm > most) most = norm, chosen = l;
      }
    }
    const Tensor& features = probe.levels[chosen];
    if (values[chosen].empty()) values[chosen] = floats_of(features);
    cams[n].level = static_cast<int>(first + chosen);
    cams[n].height = features.size(1);
    cams[n].width = features.size(2);
    cams[n].heat = heat_of(values[chosen], gradients[chosen], features.shape(), n);
  }
  return cams;
}

}  // namespace mixpl
