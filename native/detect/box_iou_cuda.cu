#include "core/cuda/kernel.h"
#include "detect/box_iou.h"

namespace mixpl::cuda {
namespace {

struct PairsView {
  const Box *a, *b;
  int64_t columns;
  IouKind kind;
  float* out;
  MIXPL_DEVICE void operator()(int64_t i) const {
    out[i] = box_similarity(a[i / columns], b[i % columns], kind);
  }
};

}  // namespace

void pairwise_iou(const Tensor& a, const Tensor& b, IouKind kind, Tensor& out) {
  for_each(out.numel(), PairsView{reinterpret_cast<const Box*>(a.data<float>()),
                                  reinterpret_cast<const Box*>(b.data<float>()), b.size(0), kind,
                                  out.data<float>()});
}

}  // namespace mixpl::cuda
