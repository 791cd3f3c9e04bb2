#include "detect/truth.h"

#include <algorithm>
#include <limits>

#include "core/check.h"
#include "core/part.h"
#include "detect/box_iou.h"

namespace mixpl {

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
    check.shape("labels", labels[n], {boxes[n].size(0)}, "one per box");
    truth.counts.push_back(boxes[n].size(0));
    total += boxes[n].size(0);
    if (total > std::numeric_limits<int32_t>::max() / 4)
      throw ShapeError(str(op, ": boxes of a batch must be below 2^29, got ", total));
    first.push_back(static_cast<int32_t>(total));
  }
  // One block, so that it goes up in one copy: boxes, labels, first.
  const int64_t label_at = total * int64_t{sizeof(Box)}, first_at = label_at + 4 * total;
  // Boxes come from the host, but those of a named op are where the op runs.
  Tensor block = Tensor::empty({first_at + 4 * (images + 1)}, DType::u8,
                               boxes.empty() ? Device{} : boxes[0].device());
  const auto split = [&] {
    truth.boxes = part_of(block, 0, {total, 4}, DType::f32);
    truth.labels = part_of(block, label_at, {total}, DType::i32);
    truth.first = part_of(block, first_at, {images + 1}, DType::i32);
  };
  split();
  for (int64_t n = 0; n < images; ++n) {
    part_of(block, first[n] * int64_t{sizeof(Box)}, boxes[n].shape(), DType::f32)
        .copy_from(boxes[n]);
    part_of(block, label_at + first[n] * int64_t{4}, labels[n].shape(), DType::i32)
        .copy_from(labels[n]);
  }
  truth.first.copy_from(Tensor::from(first, {images + 1}));
  if (block.device() != device) {
    block = block.to(device);
    split();
  }
  return truth;
}

Truth join_unlabelled(const char* op, const Tensor& boxes) {
  as_boxes(op, "boxes", boxes);
  const Device device = boxes.device();
  return join_truth(op, {boxes}, {Tensor::zeros({boxes.size(0)}, DType::i32, device)}, device);
}

}  // namespace mixpl
