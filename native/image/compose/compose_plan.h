// A batch of compositions as one block of plain data: worked out on the host, uploaded by one copy,
// read by kernels. Everything refers to everything else by offsets, so the block may lie anywhere.
#pragma once

#include <cstdint>
#include <vector>

#include "image/compose/color_math.h"
#include "image/compose/compose.h"
#include "image/compose/compose_math.h"

namespace mixpl {

/// `count` values of type T at `offset` bytes of the block.
template <typename T>
struct PlanArray {
  uint32_t offset = 0, count = 0;
  MIXPL_HD const T* in(const uint8_t* block) const {
    return reinterpret_cast<const T*>(block + offset);
  }
};

/// Axis (sampling.h).
struct AxisPlan {
  int taps = 1, begin = 0, end = 0;  // [begin, end): coordinates inside, counted from the layer's
  PlanArray<int> first;
  PlanArray<float> weights;
};

struct StagePlan {
  ColorOp op;
  Blend blend;
  int table;  // of TablePlan; operations with is_table(op) only
};

struct LayerPlan {
  const uint8_t* source = nullptr;  // on the device
  int source_width = 0, source_height = 0;
  int x1 = 0, y1 = 0, x2 = 0, y2 = 0;
  ChannelScale scale[3] = {};
  float fill[3] = {};  // network's order
  bool bgr = false, color_fill = false, aligned = false, affine = false;
  AxisPlan columns, rows;     // aligned
  double map[9] = {};         // otherwise
  PlanArray<double> samples;  // where in a pixel, per axis
  int halo = 0;  // rows and columns around a tile that its sharpness operations look at
  PlanArray<StagePlan> stages;
  PlanArray<EraseRect> erase;
};

/// A table [3, 256] that is made on the device, whose statistics the host does not know.
struct TablePlan {
  ColorOp op;
  double magnitude;
  int statistics;  // of StatisticsPlan; operations with needs_statistics(op) only
  bool bgr;
};

struct StatisticsPlan {
  const uint8_t* source;  // on the device
  int64_t pixels;
};

struct ComposePlan {
  std::vector<uint8_t> block;
  PlanArray<PlanArray<LayerPlan>> images;
  PlanArray<TablePlan> tables;
  PlanArray<StatisticsPlan> statistics;
  int halo = 0;             // the widest
  bool projective = false;  // a map is not affine
};

/// @param sources with pointers of the device
ComposePlan make_plan(const std::vector<ComposeImage>& images,
                      const std::vector<ComposeSource>& sources, const Normalisation& norm);

}  // namespace mixpl
