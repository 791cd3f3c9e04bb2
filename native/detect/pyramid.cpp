#include "detect/pyramid.h"

namespace mixpl {

Pyramid::Pyramid(const std::vector<int64_t>& sizes) : levels(static_cast<int>(sizes.size())) {
  if (sizes.size() > kMostLevels)
    throw ShapeError(str("pyramid: must have at most ", kMostLevels, " levels, got ", levels));
  for (int l = 0; l < levels; ++l) first[l + 1] = first[l] + sizes[l];
}

std::vector<Tensor> per_level(const Pyramid& pyramid, int64_t images, DType dtype, Device device,
                              std::vector<int64_t> tail) {
  std::vector<Tensor> out;
  for (int l = 0; l < pyramid.levels; ++l) {
    std::vector<int64_t> shape{images, pyramid.size(l)};
    shape.insert(shape.end(), tail.begin(), tail.end());
    out.push_back(Tensor::empty(Shape(shape), dtype, device));
  }
  return out;
}

}  // namespace mixpl
