// What a candidate of a dense head scores, the same on both devices.
#pragma once

#include <cmath>

#include "detect/box_decoder.h"

namespace mixpl {

/// What a detection's score is made of.
enum class ScoreRule : uint8_t {
  classes,  // sigmoid(logit)
  product,  // sigmoid(logit) sigmoid(quality), after score_thr and nms_pre took the first alone
  geometric_mean,  // sqrt of that product, before score_thr and nms_pre (torchvision)
  probabilities    // the "logits" are scores already
};

/// Numbers from the least to the most.
struct Span {
  float least, most;
  MIXPL_HD bool has(float x) const { return x >= least && x <= most; }
  MIXPL_HD bool is_all() const { return least == -INFINITY && most == INFINITY; }
};

/// The scores of one level by (anchor, class) pair; pair = anchor * classes + class.
struct DenseScores {
  Numbers logits, quality;
  int64_t anchors, classes;
  ScoreRule rule;
  float score_thr;
  float sieve;  // at or below every logit whose score exceeds score_thr: spares most exponentials

  static float sieve_of(ScoreRule rule, float score_thr) {
    if (rule == ScoreRule::probabilities) return score_thr;
    // Quality is at most 1.
    const float thr = rule == ScoreRule::geometric_mean ? score_thr * score_thr : score_thr;
    return thr >= 1 ? INFINITY : logit_below(thr);
  }

  MIXPL_HD static float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
  MIXPL_HD float quality_of(int64_t image, int64_t anchor) const {
    return sigmoid(quality[image * anchors + anchor]);
  }
  /// The score as far as it decides who stays; `x` is the pair's logit.
  MIXPL_HD float deciding(float x, int64_t image, int64_t pair) const {
    if (rule == ScoreRule::probabilities) return x;
    const float score = sigmoid(x);
    if (rule != ScoreRule::geometric_mean) return score;
    return sqrtf(score * quality_of(image, pair / classes));
  }
  /// Where logits lie whose deciding scores are in the span, and perhaps some others: without an
  /// exponential, which of them need one. Scores and this are rounded, so it is wider by far more
  /// than that.
  MIXPL_HD Span logits_of(Span scores) const {
    if (rule == ScoreRule::probabilities) return scores;
    if (rule == ScoreRule::geometric_mean)  // quality is at most 1
      return {logit_below(scores.least * fabsf(scores.least)), INFINITY};
    return {logit_below(scores.least), logit_above(scores.most)};
  }
  /// The score that a detection carries, from the one that decided.
  MIXPL_HD float carried(float deciding, int64_t image, int64_t pair) const {
    return rule == ScoreRule::product ? deciding * quality_of(image, pair / classes) : deciding;
  }

 private:
  static constexpr float kTiny = 1e-30f;  // what is less has lost its digits, or soon will
  MIXPL_HD static float logit_below(float score) {
    if (!(score > kTiny)) return -INFINITY;
    const float s = (score < 1 ? score : 1) * (1 - 1e-5f);
    return logf(s / (1 - s)) - 1e-3f;
  }
  MIXPL_HD static float logit_above(float score) {
    const float s = (score > kTiny ? score : kTiny) * (1 + 1e-5f);
    return s < 1 ? logf(s / (1 - s)) + 1e-3f : INFINITY;
  }
};

}  // namespace mixpl
