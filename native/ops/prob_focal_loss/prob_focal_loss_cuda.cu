#include "ops/focal_loss/labelled_sum_cuda.h"
#include "ops/prob_focal_loss/prob_focal_loss.h"
#include "ops/prob_focal_loss/prob_focal_loss_math.h"

namespace mixpl::cuda {
namespace {

struct ProbFocalEntry {
  struct Row {};
  float alpha, gamma;

  MIXPL_DEVICE Row row(int64_t) const { return {}; }
  MIXPL_DEVICE EntryTerm at(float p, bool is_label, Row) const {
    const HeldProbability h = held_probability(p);
    const ProbTerm t = is_label ? prob_focal_positive(h, gamma) : prob_focal_negative(h, gamma);
    const float w = is_label ? alpha : 1 - alpha;
    return {w * t.loss, w * t.slope};
  }
};

struct ProbQualityEntry {
  struct Row {
    float target;
  };
  const float* quality;
  float beta;

  MIXPL_DEVICE Row row(int64_t r) const { return {load_read_only(quality + r)}; }
  MIXPL_DEVICE EntryTerm at(float p, bool is_label, Row of_row) const {
    const HeldProbability h = held_probability(p);
    const ProbTerm t =
        is_label ? prob_quality_positive(h, of_row.target, beta) : prob_focal_negative(h, beta);
    return {t.loss, t.slope};
  }
};

}  // namespace

void prob_focal_loss_forward(const Tensor& probabilities, const Tensor& labels, int64_t classes,
                             const FocalLossOptions& o, Tensor& loss, Tensor& dprobabilities) {
  labelled_sum<float>(probabilities, labels, classes, ProbFocalEntry{o.alpha, o.gamma}, loss,
                      dprobabilities);
}

void prob_quality_focal_loss_forward(const Tensor& probabilities, const Tensor& labels,
                                     const Tensor& quality, int64_t classes, float beta,
                                     Tensor& loss, Tensor& dprobabilities) {
  labelled_sum<float>(probabilities, labels, classes, ProbQualityEntry{quality.data<float>(), beta},
                      loss, dprobabilities);
}

}  // namespace mixpl::cuda
