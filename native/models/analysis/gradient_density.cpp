#include "models/analysis/gradient_density.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/parallel.h"
#include "models/analysis/probed_pass.h"

namespace mixpl {
namespace {

constexpr const char* kCall = "gradientDensity";

Probe dense_pass(Detector& detector, const ImageBatch& images, const std::vector<Target>& targets) {
  Probe probe = probed_pass(kCall, detector, images, targets);
  if (probe.targets == ClassTargets::binary) return probe;
  const char* const got = probe.targets == ClassTargets::softmax ? "a softmax over the classes"
                          : probe.targets == ClassTargets::matched
                              ? "queries that are matched one to one"
                              : "targets between 0 and 1";
  throw ConfigError(str(kCall,
                        ": the detector's class loss must have a sigmoid and a target of 0 or 1 "
                        "for each class of each anchor or point (retinanet, fcos, atss, paa, and "
                        "tood before it aligns its tasks), got ",
                        got));
}

/// |p - 1| and |p|, each in f64 where it is small.
struct Norms {
  double positive, negative;
};
Norms norms_of(double score, bool is_probability) {
  if (is_probability) return {1 - score, score};
  return {1 / (1 + std::exp(score)), 1 / (1 + std::exp(-score))};
}

std::vector<std::vector<int32_t>> labels_of(const Probe& probe) {
  std::vector<std::vector<int32_t>> labels;
  for (const ShownScores& level : probe.scores) labels.push_back(level.labels.to_vector<int32_t>());
  return labels;
}

/// Adds the samples of rows [begin, end) of a level to one image's counts.
struct Counter {
  const float* scores;
  const int32_t *pseudo, *truth;
  int64_t classes;
  bool probabilities;
  int64_t bins;

  void operator()(int64_t begin, int64_t end, int64_t* counts, int64_t* above_half) const {
    for (int64_t row = begin; row < end; ++row) {
      const int32_t learned = pseudo[row], real = truth[row];
      if (learned < 0 || real < 0) continue;
      for (int64_t k = 0; k < classes; ++k) {
        const Norms norms = norms_of(scores[row * classes + k], probabilities);
        const bool positive = learned == k;
        const double norm = positive ? norms.positive : norms.negative;
        if (std::isnan(norm))
          throw DivergedError(
              str(kCall, ": class scores must be numbers, got NaN for class ", k, " of row ", row));
        const SampleType type = positive ? (real == k ? SampleType::tp : SampleType::fp)
                                         : (real == k ? SampleType::fn : SampleType::tn);
        const int t = static_cast<int>(type);
        counts[t * bins +
               std::min(static_cast<int64_t>(norm * static_cast<double>(bins)), bins - 1)]++;
        above_half[t] += norm > 0.5;
      }
    }
  }
};

}  // namespace

std::vector<GradientDensity> gradient_density(Detector& detector, const ImageBatch& images,
                                              const std::vector<Target>& truth,
                                              const std::vector<std::vector<Target>>& pseudo,
                                              int64_t bins) {
  Check(kCall).in_range("bins", static_cast<double>(bins), 1, 1000);
  const Probe real = dense_pass(detector, images, truth);
  std::vector<std::vector<float>> scores;
  for (const ShownScores& level : real.scores) scores.push_back(floats_of(level.logits));
  const std::vector<std::vector<int32_t>> real_labels = labels_of(real);

  const int64_t count = images.pixels.size(0);
  std::vector<GradientDensity> densities;
  for (const std::vector<Target>& targets : pseudo) {
    const auto labels = labels_of(dense_pass(detector, images, targets));
    GradientDensity density{std::vector<int64_t>(count * kSampleTypes * bins),
                            std::vector<int64_t>(count * kSampleTypes)};
    for (size_t l = 0; l < scores.size(); ++l) {
      const int64_t rows = static_cast<int64_t>(labels[l].size()) / std::max<int64_t>(count, 1);
      const Counter add{scores[l].data(),       labels[l].data(),   real_labels[l].data(),
                        detector.num_classes(), real.probabilities, bins};
      for (int64_t n = 0; n < count; ++n)
        parallel_chunks(rows, int64_t{1024}, [&](int64_t begin, int64_t end) {
          std::vector<int64_t> counts(kSampleTypes * bins), above_half(kSampleTypes);
          add(n * rows + begin, n * rows + end, counts.data(), above_half.data());
          const auto gather = [n](const std::vector<int64_t>& from, std::vector<int64_t>& to) {
            const auto width = static_cast<int64_t>(from.size());
            for (int64_t i = 0; i < width; ++i) to[n * width + i] += from[i];
          };
#pragma omp critical(gradient_density)
          {
            gather(counts, density.counts);
            gather(above_half, density.above_half);
          }
        });
    }
    densities.push_back(std::move(density));
  }
  return densities;
}

}  // namespace mixpl
