// Tables of colour operations, made on the device.
#pragma once

#include "core/tensor.h"
#include "image/compose/compose_plan.h"

namespace mixpl::cuda {

/// @param block the plan's, on the device
/// @return u8 [plan.tables, 3, 256], channels in the network's order
Tensor color_tables(const ComposePlan& plan, const uint8_t* block, Device device);

}  // namespace mixpl::cuda
