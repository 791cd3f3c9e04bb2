#include "binding/detector_inputs.h"

#include "binding/convert.h"
#include "core/check.h"

namespace mixpl::binding {
namespace {

// sizes is [2N]: height, width per image.
std::vector<InputSize> read_sizes(const Args& args, size_t i, const char* name, int64_t images) {
  const std::vector<float> flat = args.values<float>(i, name);
  if (static_cast<int64_t>(flat.size()) != 2 * images)
    throw ShapeError(str("detector: ", name, " must hold ", 2 * images,
                         " numbers (height, width per image), got ", flat.size()));
  std::vector<InputSize> sizes;
  for (int64_t n = 0; n < images; ++n) sizes.push_back({flat[2 * n], flat[2 * n + 1]});
  return sizes;
}

Tensor check_pixels(const Tensor& pixels) {
  const Check check("detector");
  check.floating("images", pixels);
  check.rank("images", pixels, 4, "N, H, W, 3");
  check.size("images", pixels, 3, 3, "RGB or BGR");
  return pixels;
}

LabelledBatch read_pass_from(const Args& args, size_t i) {
  const Tensor pixels = check_pixels(args.tensor(i, "images"));
  const int64_t n = pixels.size(0);
  return {{pixels, read_sizes(args, i + 1, "sizes", n), read_sizes(args, i + 2, "padSizes", n)},
          read_targets(args, i + 3, n)};
}

}  // namespace

ImageBatch moved(const ImageBatch& batch, Device device) {
  return {batch.pixels.to(device), batch.sizes, batch.pad_sizes};
}

std::vector<LabelledBatch> moved(std::vector<LabelledBatch> batches, Device device) {
  for (LabelledBatch& batch : batches) batch.images = moved(batch.images, device);
  return batches;
}

std::vector<Target> read_targets(const Args& args, size_t i, int64_t images) {
  const std::vector<float> boxes = args.values<float>(i, "boxes");
  const std::vector<int32_t> labels = args.values<int32_t>(i + 1, "labels");
  const std::vector<int32_t> counts = args.values<int32_t>(i + 2, "counts");
  int64_t total = 0;
  for (int32_t c : counts) total += c;
  if (static_cast<int64_t>(counts.size()) != images ||
      4 * total != static_cast<int64_t>(boxes.size()) ||
      total != static_cast<int64_t>(labels.size()))
    throw ShapeError(str("detector.loss: targets must have one entry per image (", images,
                         ") with 4 numbers per box and one label per box, got ", counts.size(),
                         " entries, ", boxes.size(), " box numbers, ", labels.size(), " labels"));
  std::vector<Target> targets;
  int64_t at = 0;
  for (int32_t c : counts) {
    targets.push_back(
        {Tensor::from(std::vector<float>(boxes.begin() + 4 * at, boxes.begin() + 4 * (at + c)),
                      {c, 4}),
         Tensor::from(std::vector<int32_t>(labels.begin() + at, labels.begin() + at + c), {c})});
    at += c;
  }
  return targets;
}

LabelledBatch read_pass(const Args& args) { return read_pass_from(args, 0); }

std::vector<LabelledBatch> read_passes(const Args& args) {
  std::vector<LabelledBatch> batches{read_pass_from(args, 0)};
  for (size_t i = 6; args.present(i); i += 6) batches.push_back(read_pass_from(args, i));
  return batches;
}

ImageBatch read_batch(const Args& args) {
  const Tensor pixels = check_pixels(args.tensor(0, "images"));
  const std::vector<InputSize> sizes = read_sizes(args, 1, "sizes", pixels.size(0));
  return {pixels, sizes, sizes};
}

}  // namespace mixpl::binding
