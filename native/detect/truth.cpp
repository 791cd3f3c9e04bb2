#include "detect/truth.h"

#include <algorithm>
#include <limits>

#include "core/check.h"
#include "detect/box_iou.h"

namespace mixpl {
namespace {

// A part of `block` (u8) as a tensor of its own; the block lives as long as its parts.
Tensor part_of(const Tensor& block, int64_t offset, const Shape& shape, DType dtype) {
  auto impl = std::make_shared<TensorImpl>();
  impl->storage =
      std::shared_ptr<void>(block.impl()->storage, static_cast<uint8_t*>(block.raw()) + offset);
  impl->shape = shape;
  impl->dtype = dtype;
  impl->device = block.device();
  return Tensor(std::move(impl));
}

}  // namespace

int64_t Truth::most() const {
  return counts.empty() ? 0 : *std::max_element(counts.begin(), counts.end());
}

Truth join_truth(const char* op, const std::vector<Tensor>& boxes,
                 const std::vector<Tensor>& labels, Device device) {
  const Check check(op);
  const int64_t images = static_cast<int64_t>(boxes.size());
  if (labels.size() != boxes.size())
    throw ShapeError(
        str(op, ": labels must have one entry per image (", images, "), got ", labels.size()));
  std::vector<int32_t> first{0};
  Truth truth;
  int64_t total = 0;
  for (size_t n = 0; n < boxes.size(); ++n) {
    as_boxes(op, "boxes", boxes[n]);
    check.dtype("labels", labels[n], DType::i32);
    check.shape("labels", labels[n], {boxes[n].size(0)}, "one a box");
    truth.counts.push_back(boxes[n].size(0));
    total += boxes[n].size(0);
    if (total > std::numeric_limits<int32_t>::max() / 4)
      throw ShapeError(str(op, ": boxes of a batch must be below 2^29, got ", total));
    first.push_back(static_cast<int32_t>(total));
  }
  // One block, so that it goes up in one copy: boxes, labels, first.
  const int64_t label_at = total * int64_t{sizeof(Box)}, first_at = label_at + 4 * total;
  Tensor block = Tensor::empty({first_at + 4 * (images + 1)}, DType::u8);
  uint8_t* to = block.data<uint8_t>();
  for (size_t n = 0; n < boxes.size(); ++n) {
    std::copy_n(static_cast<const uint8_t*>(boxes[n].raw()), boxes[n].nbytes(),
                to + first[n] * sizeof(Box));
    std::copy_n(static_cast<const uint8_t*>(labels[n].raw()), labels[n].nbytes(),
                to + label_at + first[n] * int64_t{4});
  }
  std::copy(first.begin(), first.end(), reinterpret_cast<int32_t*>(to + first_at));
  truth.boxes = part_of(block, 0, {total, 4}, DType::f32);
  truth.labels = part_of(block, label_at, {total}, DType::i32);
  truth.first = part_of(block, first_at, {images + 1}, DType::i32);
  return truth;
}

}  // namespace mixpl
