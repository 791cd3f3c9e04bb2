#include "core/cuda/kernel.h"
#include "ops/valid_boxes/valid_boxes.h"
#include "ops/valid_boxes/valid_boxes_math.h"

namespace mixpl::cuda {
namespace {

MIXPL_DEVICE bool inverted(const Vec<float, 4>& b) {
  return mixpl::inverted(Box{b[0], b[1], b[2], b[3]});
}

struct ChooseView {
  const float* __restrict__ boxes;
  const float* __restrict__ fallback;
  float* __restrict__ out;

  MIXPL_DEVICE void operator()(int64_t i) const {
    Vec<float, 4> b = load_vec<float, 4>(boxes + 4 * i);
    if (inverted(b)) b = load_vec<float, 4>(fallback + 4 * i);
    store_vec(out + 4 * i, b);
  }
};

struct GradientView {
  const float* __restrict__ dout;
  const float* __restrict__ boxes;
  float* __restrict__ dboxes;     // null: not wanted
  float* __restrict__ dfallback;  // null: not wanted

  MIXPL_DEVICE void operator()(int64_t i) const {
    const Vec<float, 4> d = load_vec<float, 4>(dout + 4 * i), none{};
    const bool second = inverted(load_vec<float, 4>(boxes + 4 * i));
    if (dboxes) store_vec(dboxes + 4 * i, second ? none : d);
    if (dfallback) store_vec(dfallback + 4 * i, second ? d : none);
  }
};

float* data_of(const Tensor& t) { return t.defined() ? t.data<float>() : nullptr; }

}  // namespace

void valid_boxes_forward(const Tensor& boxes, const Tensor& fallback, Tensor& out) {
  for_each(out.size(0), ChooseView{boxes.data<float>(), fallback.data<float>(), out.data<float>()});
}

void valid_boxes_backward(const Tensor& dout, const Tensor& boxes, Tensor& dboxes,
                          Tensor& dfallback) {
  for_each(dout.size(0), GradientView{dout.data<float>(), boxes.data<float>(), data_of(dboxes),
                                      data_of(dfallback)});
}

}  // namespace mixpl::cuda
