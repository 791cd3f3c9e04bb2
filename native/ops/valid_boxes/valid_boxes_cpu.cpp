#include "core/parallel.h"
#include "ops/valid_boxes/valid_boxes.h"
#include "ops/valid_boxes/valid_boxes_math.h"

namespace mixpl::cpu {
namespace {
Box* boxes_of(const Tensor& t) {
  return t.defined() ? reinterpret_cast<Box*>(t.data<float>()) : nullptr;
}
}  // namespace

void valid_boxes_forward(const Tensor& boxes, const Tensor& fallback, Tensor& out) {
  const Box *a = boxes_of(boxes), *b = boxes_of(fallback);
  Box* to = boxes_of(out);
  parallel_for(out.size(0), [=](int64_t i) { to[i] = inverted(a[i]) ? b[i] : a[i]; });
}

void valid_boxes_backward(const Tensor& dout, const Tensor& boxes, Tensor& dboxes,
                          Tensor& dfallback) {
  const Box *d = boxes_of(dout), *a = boxes_of(boxes);
  Box *da = boxes_of(dboxes), *db = boxes_of(dfallback);
  parallel_for(dout.size(0), [=](int64_t i) {
    const bool second = inverted(a[i]);
    if (da) da[i] = second ? Box{} : d[i];
    if (db) db[i] = second ? d[i] : Box{};
  });
}

}  // namespace mixpl::cpu
