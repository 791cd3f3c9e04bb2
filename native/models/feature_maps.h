// What networks hand on to heads.
#pragma once

#include <vector>

#include "core/tensor.h"

namespace mixpl {

/// Maps of one batch, finest first, [N, H, W, C] each; a level that nobody uses may be undefined.
using FeatureMaps = std::vector<Tensor>;

/// Level `i` of each, as a convolution takes them.
inline std::vector<Tensor> level_of(const std::vector<FeatureMaps>& pyramids, size_t i) {
  std::vector<Tensor> maps;
  for (const FeatureMaps& levels : pyramids) maps.push_back(levels.at(i));
  return maps;
}
inline std::vector<Tensor> last_level(const std::vector<FeatureMaps>& pyramids) {
  return level_of(pyramids, pyramids.at(0).size() - 1);
}
/// Maps of all batches in one list, level after level, as convolutions that levels share take them.
inline std::vector<Tensor> level_after_level(const std::vector<FeatureMaps>& pyramids) {
  std::vector<Tensor> maps;
  for (size_t l = 0; l < pyramids.at(0).size(); ++l)
    for (const FeatureMaps& levels : pyramids) maps.push_back(levels.at(l));
  return maps;
}
/// What was made of such a list, map by map, for each of so many batches.
inline std::vector<FeatureMaps> batch_by_batch(const std::vector<Tensor>& maps, size_t batches) {
  std::vector<FeatureMaps> pyramids(batches);
  for (size_t i = 0; i < maps.size(); ++i) pyramids[i % batches].push_back(maps[i]);
  return pyramids;
}
/// Appends one map to each.
inline void add_level(std::vector<FeatureMaps>& pyramids, const std::vector<Tensor>& maps) {
  for (size_t i = 0; i < pyramids.size(); ++i) pyramids[i].push_back(maps.at(i));
}

}  // namespace mixpl
