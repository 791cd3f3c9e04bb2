#pragma once

#include <cstdint>
#include <vector>

#include "core/options.h"
#include "core/philox.h"

namespace mixpl {

struct SamplerOptions {
  int64_t size = 256;         // boxes per image
  double pos_fraction = 0.5;  // at most this share of `size` are positives

  int64_t most_positives() const {
    return static_cast<int64_t>(static_cast<double>(size) * pos_fraction);
  }

  /// { sampleSize, posFraction }. @throws ConfigError in the name of `section`
  static SamplerOptions read(const Options& options, const SamplerOptions& defaults,
                             const char* section);
};

/// What a box's place in the draw follows from, lowest first: a random number of its own, so that
/// the draw does not depend on the others.
MIXPL_HD uint32_t ticket_of(const Philox& random, int64_t box) {
  return random.block(static_cast<uint64_t>(box) / 4)[static_cast<size_t>(box % 4)];
}
/// The draw of one image of a batch.
MIXPL_HD Philox of_image(const Philox& random, int64_t image) {
  return {random.seed, random.stream + static_cast<uint64_t>(image)};
}

/// Indices of the boxes that count in an image's loss, each list rising.
struct Sampled {
  std::vector<int32_t> positives, negatives;
};

/// Draws positives, then negatives in the places that are left; everything where there are not more
/// than wanted. Which ones follows from `random` alone.
///
/// @param assigned per box: >= 0 positive, kNegative, or kIgnored, which is never drawn
/// @source         mmdetection RandomSampler, torchvision BalancedPositiveNegativeSampler
Sampled sample_boxes(const std::vector<int32_t>& assigned, const SamplerOptions& options,
                     const Philox& random);

}  // namespace mixpl
