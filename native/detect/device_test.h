// For tests that hold the device against the host.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "core/device.h"
#include "core/tensor.h"
#include "detect/detections.h"

#define MIXPL_NEEDS_GPU() \
  if (!cuda_reason().empty()) GTEST_SKIP() << cuda_reason()

namespace mixpl {

inline Device test_gpu() { return Device::cuda(0); }

inline Tensor tensor_of(const std::vector<Box>& boxes) {
  Tensor t = Tensor::empty({static_cast<int64_t>(boxes.size()), 4}, DType::f32);
  std::copy(boxes.begin(), boxes.end(), reinterpret_cast<Box*>(t.data<float>()));
  return t;
}

/// As f32 sums in another order or another libm leave it.
inline void expect_near(const std::vector<float>& found, const std::vector<float>& wanted) {
  ASSERT_EQ(found.size(), wanted.size());
  for (size_t i = 0; i < found.size(); ++i)
    EXPECT_NEAR(found[i], wanted[i], 1e-5f * std::max(1.0f, std::abs(wanted[i]))) << i;
}

inline void expect_same(PendingDetections ours, PendingDetections theirs) {
  const std::vector<Detections> found = ours.get(), wanted = theirs.get();
  ASSERT_EQ(found.size(), wanted.size());
  for (size_t n = 0; n < found.size(); ++n) {
    SCOPED_TRACE(testing::Message() << "image " << n);
    EXPECT_EQ(found[n].labels, wanted[n].labels);
    expect_near(found[n].scores, wanted[n].scores);
    expect_near(found[n].boxes, wanted[n].boxes);
  }
}

}  // namespace mixpl
