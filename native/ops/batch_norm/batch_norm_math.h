// The arithmetic of batch_norm beyond that of channel_norm, once for both devices.
#pragma once

#include "core/launch.h"

namespace mixpl {

MIXPL_HD float moved_average(float running, float batch, double factor, double momentum) {
  return static_cast<float>((1 - momentum) * running + momentum * factor * batch);
}

}  // namespace mixpl
