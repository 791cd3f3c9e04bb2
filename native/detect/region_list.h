// Regions on the host, one by one.
#pragma once

#include <vector>

#include "detect/regions.h"

namespace mixpl::cpu {

class RegionList {
 public:
  explicit RegionList(int64_t images) : counts_(images, 0) {}
  /// Images in rising order.
  void add(int32_t image, const Box& box) {
    boxes_.push_back(box);
    image_.push_back(image);
    ++counts_[image];
  }
  Regions regions() const;

 private:
  std::vector<Box> boxes_;
  std::vector<int32_t> image_, counts_;
};

}  // namespace mixpl::cpu
