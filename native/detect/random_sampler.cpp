#include "detect/random_sampler.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "detect/max_iou_assigner.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

// `most` of the boxes by their tickets, the lower index on ties.
void draw(std::vector<int32_t>& boxes, int64_t most, const Philox& random) {
  if (static_cast<int64_t>(boxes.size()) <= most) return;
  struct Ticket {
    uint32_t key;
    int32_t box;
    bool operator<(const Ticket& other) const {
      return key != other.key ? key < other.key : box < other.box;
    }
  };
  std::vector<Ticket> tickets;
  for (int32_t box : boxes) tickets.push_back({ticket_of(random, box), box});
  std::nth_element(tickets.begin(), tickets.begin() + most, tickets.end());
  boxes.clear();
  for (int64_t i = 0; i < most; ++i) boxes.push_back(tickets[i].box);
  std::sort(boxes.begin(), boxes.end());
}

}  // namespace

SamplerOptions SamplerOptions::read(const Options& options, const SamplerOptions& defaults,
                                    const char* section) {
  SamplerOptions out = defaults;
  out.size = options.integer("sampleSize", out.size);
  out.pos_fraction = options.number("posFraction", out.pos_fraction);
  if (out.size < 1 || out.size > 1 << 24)
    throw ConfigError(str(section, ".sampleSize must be in [1, 16777216], got ", out.size));
  if (!(out.pos_fraction >= 0 && out.pos_fraction <= 1))
    throw ConfigError(str(section, ".posFraction must be in [0, 1], got ", out.pos_fraction));
  return out;
}

Sampled sample_boxes(const std::vector<int32_t>& assigned, const SamplerOptions& options,
                     const Philox& random) {
  Sampled out;
  for (size_t i = 0; i < assigned.size(); ++i) {
    if (assigned[i] >= 0) out.positives.push_back(static_cast<int32_t>(i));
    if (assigned[i] == kNegative) out.negatives.push_back(static_cast<int32_t>(i));
  }
  draw(out.positives, options.most_positives(), random);
  draw(out.negatives, options.size - static_cast<int64_t>(out.positives.size()), random);
  return out;
}

namespace {
// Input: assigned i32 [A]; { sampleSize, posFraction, seed, stream }. Outputs: positives,
// negatives.
const bool registered = register_op("sampleBoxes", [](const std::vector<Tensor>& in,
                                                      const Options& o) {
  if (in.size() != 1) throw ShapeError(str("sampleBoxes: needs 1 tensor, got ", in.size()));
  const Sampled s = sample_boxes(
      in[0].to_vector<int32_t>(), SamplerOptions::read(o, {}, "sampleBoxes"),
      {static_cast<uint64_t>(o.integer("seed", 0)), static_cast<uint64_t>(o.integer("stream", 0))});
  const auto tensor = [](const std::vector<int32_t>& v) {
    return Tensor::from(v, {static_cast<int64_t>(v.size())});
  };
  return std::vector<Tensor>{tensor(s.positives), tensor(s.negatives)};
});
}  // namespace

}  // namespace mixpl
