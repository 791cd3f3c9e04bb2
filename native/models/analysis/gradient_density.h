// How large the gradients of a dense detector's class scores are, and which of them are right.
#pragma once

#include <array>
#include <vector>

#include "models/detector.h"

namespace mixpl {

/// What the assignment by pseudo labels makes of a sample, and that by the truth: positive in
/// both, in the first alone, in the second alone, in none.
enum class SampleType : uint8_t { tp, fp, fn, tn };
constexpr int kSampleTypes = 4;

/// Samples by type and norm of their gradient, counted exactly.
struct GradientDensity {
  /// [image][type][bin]: bin b holds the norms in [b, b + 1) / bins; the last one holds 1, too.
  std::vector<int64_t> counts;
  /// [image][type]: norms above 0.5.
  std::vector<int64_t> above_half;
};

/// A sample is a (row, class) entry of the scores, a row an anchor or a point; its gradient norm is
/// g = |p - p*|, p the score and p* in {0, 1} what the pseudo labels make it learn. Both positive
/// means so for the same class. Rows that either assignment ignores are left out.
///
/// The detector runs under the context as it is, once for the truth and once for each of `pseudo`:
/// the scores are the same bits every time.
/// @param pseudo per density a target for every image
/// @param bins   in [1, 1000]
/// @throws       ConfigError (class losses whose targets are not 0 and 1 at each anchor or point),
///               RangeError (bins), DivergedError (scores that are NaN); as loss() does
/// @source       norm: Li, Liu and Wang 2019, arXiv:1811.05181, eq. 2; types: MixPL,
///               arXiv:2312.07006, Fig. 6
std::vector<GradientDensity> gradient_density(Detector& detector, const ImageBatch& images,
                                              const std::vector<Target>& truth,
                                              const std::vector<std::vector<Target>>& pseudo,
                                              int64_t bins);

}  // namespace mixpl
