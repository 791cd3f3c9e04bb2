#include "ops/focal_loss/focal_loss_math.h"
#include "ops/focal_loss/labelled_sum_cuda.h"
#include "ops/quality_focal_loss/quality_focal_loss.h"
#include "ops/quality_focal_loss/quality_focal_loss_math.h"

namespace mixpl::cuda {
namespace {

template <int kBeta>
struct QualityEntry {
  struct Row {
    float target;
  };
  const float* quality;
  float beta;

  MIXPL_DEVICE Row row(int64_t r) const { return {load_read_only(quality + r)}; }
  MIXPL_DEVICE EntryTerm at(float x, bool is_label, Row of_row) const {
    if (is_label) {
      const QualityTerm t = quality_term(x, of_row.target, beta);
      return {t.loss, t.slope};
    }
    const FocalTerm t = focal_term<kBeta>(-x, beta);
    return {t.loss, -t.slope};
  }
};

}  // namespace

void quality_focal_loss_forward(const Tensor& logits, const Tensor& labels, const Tensor& quality,
                                int64_t classes, float beta, Tensor& loss, Tensor& dlogits) {
  dispatch_floating(logits.dtype(), [&](auto tag) {
    with_gamma(beta, [&]<int kBeta>() {
      labelled_sum<decltype(tag)>(logits, labels, classes,
                                  QualityEntry<kBeta>{quality.data<float>(), beta}, loss, dlogits);
    });
  });
}

}  // namespace mixpl::cuda
