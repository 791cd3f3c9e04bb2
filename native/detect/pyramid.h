// How the levels of a feature pyramid follow each other, as loops and kernels see it.
#pragma once

#include <cstdint>
#include <vector>

#include "core/launch.h"
#include "core/tensor.h"

namespace mixpl {

/// More than any neck makes; bounds what kernels take by value.
constexpr int kMostLevels = 16;

/// Anchors or points of all levels in a row, level after level.
struct Pyramid {
  int levels = 0;
  int64_t first[kMostLevels + 1] = {};  // of each level in the row; the last is their number

  Pyramid() = default;
  /// @throws ShapeError for more than kMostLevels
  explicit Pyramid(const std::vector<int64_t>& sizes);

  MIXPL_HD int64_t count() const { return first[levels]; }
  MIXPL_HD int64_t size(int level) const { return first[level + 1] - first[level]; }
  MIXPL_HD int level_of(int64_t i) const {
    int level = 0;
    while (i >= first[level + 1]) ++level;
    return level;
  }
};

/// Where an anchor or point of a batch is: place `cell` of `level`, `in_row` among all levels, and
/// `at` in that level's tensors [N, A_l, ...].
struct Place {
  int64_t image, in_row, cell, at;
  int level;
};

/// The i-th of a batch, image after image.
MIXPL_HD Place place_of(const Pyramid& pyramid, int64_t i) {
  const int64_t image = i / pyramid.count(), in_row = i % pyramid.count();
  const int level = pyramid.level_of(in_row);
  const int64_t cell = in_row - pyramid.first[level];
  return {image, in_row, cell, image * pyramid.size(level) + cell, level};
}

/// One pointer a level.
template <typename T>
struct PerLevel {
  T* of[kMostLevels] = {};
  MIXPL_HD T* operator[](int level) const { return of[level]; }
};

/// Into one tensor a level, whose numbers are `Number`s, seen as T: say, boxes.
template <typename T, typename Number>
PerLevel<T> pointers(const std::vector<Tensor>& levels) {
  PerLevel<T> out;
  for (size_t l = 0; l < levels.size(); ++l)
    out.of[l] = reinterpret_cast<T*>(levels[l].data<Number>());
  return out;
}
template <typename T>
PerLevel<T> pointers(const std::vector<Tensor>& levels) {
  return pointers<T, T>(levels);
}

/// Per level an uninitialised [images, A_l, tail...].
std::vector<Tensor> per_level(const Pyramid& pyramid, int64_t images, DType dtype, Device device,
                              std::vector<int64_t> tail = {});

}  // namespace mixpl
