#include "core/parallel.h"
#include "ops/valid_boxes/valid_boxes.h"

namespace mixpl::cpu {
namespace {
bool inverted(const float* b) { return b[0] > b[2] || b[1] > b[3]; }
}  // namespace

void valid_boxes_forward(const Tensor& boxes, const Tensor& fallback, Tensor& out) {
  const float *a = boxes.data<float>(), *b = fallback.data<float>();
  float* to = out.data<float>();
  parallel_for(out.size(0), [=](int64_t i) {
    const float* from = (inverted(a + 4 * i) ? b : a) + 4 * i;
    for (int k = 0; k < 4; ++k) to[4 * i + k] = from[k];
  });
}

void valid_boxes_backward(const Tensor& dout, const Tensor& boxes, Tensor& dboxes,
                          Tensor& dfallback) {
  const float *d = dout.data<float>(), *a = boxes.data<float>();
  float* da = dboxes.defined() ? dboxes.data<float>() : nullptr;
  float* db = dfallback.defined() ? dfallback.data<float>() : nullptr;
  parallel_for(dout.size(0), [=](int64_t i) {
    const bool second = inverted(a + 4 * i);
    for (int64_t k = 4 * i; k < 4 * i + 4; ++k) {
      if (da) da[k] = second ? 0.0f : d[k];
      if (db) db[k] = second ? d[k] : 0.0f;
    }
  });
}

}  // namespace mixpl::cpu
