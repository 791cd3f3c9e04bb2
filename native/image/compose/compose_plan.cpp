#include "image/compose/compose_plan.h"

#include <cstring>
#include <map>

#include "core/parallel.h"
#include "image/compose/color.h"
#include "image/compose/sampling.h"

namespace mixpl {
namespace {

class PlanWriter {
 public:
  explicit PlanWriter(std::vector<uint8_t>& block) : block_(block) {}

  template <typename T>
  PlanArray<T> add(const std::vector<T>& values) {
    constexpr size_t kAlignment = 16;
    const size_t offset = (block_.size() + kAlignment - 1) / kAlignment * kAlignment;
    const size_t bytes = values.size() * sizeof(T);
    if (offset + bytes > UINT32_MAX)
      throw ShapeError(
          "compose: the batch must be described by less than 4 GiB; try a smaller one");
    block_.resize(offset + bytes);
    if (bytes) std::memcpy(block_.data() + offset, values.data(), bytes);
    return {static_cast<uint32_t>(offset), static_cast<uint32_t>(values.size())};
  }

 private:
  std::vector<uint8_t>& block_;
};

AxisPlan add_axis(PlanWriter& writer, const Axis& axis) {
  return {axis.taps, axis.inside.begin, axis.inside.end, writer.add(axis.first),
          writer.add(axis.weights)};
}

LayerPlan add_layer(PlanWriter& writer, const ComposeLayer& layer, const Sampling& s,
                    const Normalisation& norm) {
  LayerPlan p;
  p.source = s.source.data;
  p.source_width = s.source.width;
  p.source_height = s.source.height;
  p.x1 = layer.x1;
  p.y1 = layer.y1;
  p.x2 = layer.x2;
  p.y2 = layer.y2;
  for (int c = 0; c < 3; ++c) {
    p.scale[c] = channel_scale(norm.mean[c], norm.std[c], layer.weight);
    p.fill[c] = s.fill[c];
  }
  p.bgr = s.bgr;
  p.color_fill = layer.color_fill;
  p.aligned = s.aligned;
  p.affine = s.affine;
  if (s.aligned) {
    p.columns = add_axis(writer, s.columns);
    p.rows = add_axis(writer, s.rows);
  }
  std::copy(s.map.begin(), s.map.end(), p.map);
  std::vector<double> offsets(s.samples);
  for (int i = 0; i < s.samples; ++i) offsets[i] = (i + 0.5) / s.samples;
  p.samples = writer.add(offsets);
  p.erase = writer.add(layer.erase);
  return p;
}

}  // namespace

ComposePlan make_plan(const std::vector<ComposeImage>& images,
                      const std::vector<ComposeSource>& sources, const Normalisation& norm) {
  ComposePlan plan;
  PlanWriter writer(plan.block);
  std::vector<PlanArray<LayerPlan>> planned;
  std::vector<TablePlan> tables;
  std::vector<StatisticsPlan> statistics;
  std::map<int, int> statistics_of;  // source -> its place
  for (const ComposeImage& image : images) {
    std::vector<Sampling> samplings(image.layers.size());
    parallel_for(static_cast<int64_t>(samplings.size()), int64_t{1}, [&](int64_t i) {
      const ComposeLayer& layer = image.layers[i];
      samplings[i] = make_sampling(layer, sources[layer.source], norm.bgr);
    });
    std::vector<LayerPlan> layers;
    for (size_t i = 0; i < samplings.size(); ++i) {
      const ComposeLayer& layer = image.layers[i];
      LayerPlan p = add_layer(writer, layer, samplings[i], norm);
      std::vector<StagePlan> stages;
      for (const ColorStep& step : layer.color) {
        StagePlan stage{step.op, blend_of(step.magnitude), -1};
        if (is_table(step.op)) {
          stage.table = static_cast<int>(tables.size());
          tables.push_back({step.op, step.magnitude, -1, norm.bgr});
        }
        if (needs_statistics(step.op)) {
          const ComposeSource& source = sources[layer.source];
          const auto [found, added] =
              statistics_of.try_emplace(layer.source, static_cast<int>(statistics.size()));
          if (added) statistics.push_back({source.data, int64_t{source.width} * source.height});
          tables.back().statistics = found->second;
        }
        if (step.op == ColorOp::sharpness) ++p.halo;
        stages.push_back(stage);
      }
      p.stages = writer.add(stages);
      plan.halo = std::max(plan.halo, p.halo);
      plan.projective |= !p.affine;
      layers.push_back(p);
    }
    planned.push_back(writer.add(layers));
  }
  plan.images = writer.add(planned);
  plan.tables = writer.add(tables);
  plan.statistics = writer.add(statistics);
  return plan;
}

}  // namespace mixpl
