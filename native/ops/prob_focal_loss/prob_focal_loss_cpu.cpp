#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "ops/prob_focal_loss/prob_focal_loss.h"
#include "ops/prob_focal_loss/prob_focal_loss_math.h"

namespace mixpl::cpu {
namespace {

// Sum over all numbers of positive(p, row) for the label's class and negative(p) for the others;
// rows are taken in chunks of fixed size.
template <typename Positive, typename Negative>
void sum_terms(const Tensor& probabilities, const Tensor& labels, int64_t classes, Tensor& loss,
               Tensor& dprobabilities, Positive&& positive, Negative&& negative) {
  const float* p = probabilities.data<float>();
  const int32_t* label = labels.data<int32_t>();
  float* d = dprobabilities.defined() ? dprobabilities.data<float>() : nullptr;
  const int64_t rows = labels.numel(), per = std::max<int64_t>(1, 2048 / classes);
  const int64_t chunks = (rows + per - 1) / per;
  std::vector<double> partial(chunks);
  parallel_for(chunks, int64_t{4}, [&](int64_t chunk) {
    double sum = 0;
    for (int64_t row = chunk * per; row < std::min(rows, (chunk + 1) * per); ++row)
      for (int64_t c = 0; c < classes; ++c) {
        const int64_t i = row * classes + c;
        ProbTerm term{0, 0};
        if (label[row] == c)
          term = positive(held_probability(p[i]), row);
        else if (label[row] >= 0)
          term = negative(held_probability(p[i]));
        sum += term.loss;
        if (d) d[i] = term.slope;
      }
    partial[chunk] = sum;
  });
  double sum = 0;
  for (double part : partial) sum += part;
  *loss.data<float>() = static_cast<float>(sum);
}

}  // namespace

void prob_focal_loss_forward(const Tensor& probabilities, const Tensor& labels, int64_t classes,
                             const FocalLossOptions& o, Tensor& loss, Tensor& dprobabilities) {
  const auto times = [](float w, ProbTerm t) { return ProbTerm{w * t.loss, w * t.slope}; };
  sum_terms(
      probabilities, labels, classes, loss, dprobabilities,
      [=](const HeldProbability& h, int64_t) {
        return times(o.alpha, prob_focal_positive(h, o.gamma));
      },
      [=](const HeldProbability& h) {
        return times(1 - o.alpha, prob_focal_negative(h, o.gamma));
      });
}

void prob_quality_focal_loss_forward(const Tensor& probabilities, const Tensor& labels,
                                     const Tensor& quality, int64_t classes, float beta,
                                     Tensor& loss, Tensor& dprobabilities) {
  const float* target = quality.data<float>();
  sum_terms(
      probabilities, labels, classes, loss, dprobabilities,
      [=](const HeldProbability& h, int64_t row) {
        return prob_quality_positive(h, target[row], beta);
      },
      [=](const HeldProbability& h) { return prob_focal_negative(h, beta); });
}

}  // namespace mixpl::cpu
