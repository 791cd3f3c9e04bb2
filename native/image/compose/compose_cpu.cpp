// A band of rows at a time, a row at a time: each layer's row is resampled, coloured and added to
// the network's row. Bands are independent and their work does not depend on who does it, so the
// result has the same bits for any number of threads.
#include <algorithm>
#include <map>
#include <memory>

#include "core/parallel.h"
#include "image/compose/color.h"
#include "image/compose/compose.h"
#include "image/compose/compose_math.h"
#include "image/compose/resample_cpu.h"

namespace mixpl::cpu {
namespace {

constexpr int kBandRows = 32;

/// ChannelScale of three channels, repeated: 24 values are eight pixels, so that vectors of eight
/// see the same pattern of channels again and again.
struct ScalePattern {
  static constexpr int kLength = 24;
  float scale[kLength], shift[kLength];

  ScalePattern(const Normalisation& norm, float weight) {
    for (int i = 0; i < kLength; ++i) {
      const ChannelScale c = channel_scale(norm.mean[i % 3], norm.std[i % 3], weight);
      scale[i] = c.scale;
      shift[i] = c.shift;
    }
  }

  /// The first layer of a pixel sets it, the others add to it.
  template <bool kSet, typename V>
  void put(const V* values, int pixels, float* out) const {
    const int count = 3 * pixels;
    int i = 0;
    for (; i + kLength <= count; i += kLength)
      for (int k = 0; k < kLength; ++k) put<kSet>(k, values[i + k], out[i + k]);
    for (int k = 0; i < count; ++i, ++k) put<kSet>(k, values[i], out[i]);
  }

 private:
  template <bool kSet>
  void put(int k, float value, float& out) const {
    out = (kSet ? 0 : out) + scaled({scale[k], shift[k]}, value);
  }
};

struct PreparedLayer {
  const ComposeLayer* layer;
  Sampling sampling;
  std::vector<ColorStage> color;
  ScalePattern scale;
  int halo = 0;  // rows beyond a band that its colour operations look at
};

PreparedLayer prepare(const ComposeLayer& layer, const ComposeSource& source,
                      const ColorStatistics& statistics, const Normalisation& norm) {
  PreparedLayer p{
      &layer, make_sampling(layer, source, norm.bgr), {}, ScalePattern(norm, layer.weight), 0};
  for (const ColorStep& step : layer.color) {
    p.color.push_back(color_stage(step, statistics, norm.bgr));
    if (step.op == ColorOp::sharpness) ++p.halo;
  }
  return p;
}

/// One layer inside one band. Buffers live on from band to band.
class BandLayer {
 public:
  /// Rows [top, bottom) of the composition.
  void start(const PreparedLayer& p, int top, int bottom) {
    p_ = &p;
    const ComposeLayer& l = *p.layer;
    begin_ = std::max(top, l.y1);
    end_ = std::min(bottom, l.y2);
    if (begin_ >= end_ || p.sampling.width == 0) {
      end_ = begin_;
      return;
    }
    sampler_.start(p.sampling);
    row_.resize(size_t(p.sampling.width) * 3 + kRowSlack);
    if (!p.color.empty()) color_rows();
  }

  bool has_row(int y) const { return y >= begin_ && y < end_; }

  /// Puts row y, which it has, into the network's row: kSet where no layer was put before.
  template <bool kSet>
  void put_row(int y, float* out) {
    const ComposeLayer& l = *p_->layer;
    out += 3 * size_t(l.x1);
    const bool erases = find_erased(y);
    if (!p_->color.empty()) return put_values<kSet>(bytes_.row(y - first_), erases, out);
    const uint8_t* bytes = sampler_.bytes(y - l.y1);
    if (bytes && !erases) return p_->scale.put<kSet>(bytes, p_->sampling.width, out);
    sampler_.row(y - l.y1, row_.data());
    put_values<kSet>(row_.data(), erases, out);
  }

 private:
  // The reference works on 8-bit values here: rounded after resampling and after every operation.
  void color_rows() {
    const ComposeLayer& l = *p_->layer;
    first_ = std::max(l.y1, begin_ - p_->halo);
    bytes_.rows = std::min(l.y2, end_ + p_->halo) - first_;
    bytes_.width = p_->sampling.width;
    bytes_.values.resize(size_t(bytes_.rows) * bytes_.width * 3);
    bytes_.spans.resize(bytes_.rows);
    const int values = 3 * bytes_.width;
    for (int y = 0; y < bytes_.rows; ++y) {
      const Span span = sampler_.row(first_ + y - l.y1, row_.data());
      uint8_t* to = bytes_.row(y);
      for (int i = 0; i < values; ++i) to[i] = to_byte(row_[i]);
      if (l.color_fill)
        bytes_.spans[y] = {0, bytes_.width};
      else
        bytes_.spans[y] = {span.begin, span.end};
    }
    apply_color(p_->color, p_->sampling.bgr, bytes_, scratch_);
  }

  /// What becomes of the pixels of row y: erased_, false where all stay.
  bool find_erased(int y) {
    const ComposeLayer& l = *p_->layer;
    bool erases = false;
    for (const EraseRect& e : l.erase) {
      const int x1 = std::max(e.x1, l.x1) - l.x1, x2 = std::min(e.x2, l.x2) - l.x1;
      if (y < e.y1 || y >= e.y2 || x1 >= x2) continue;
      if (!erases) erased_.assign(p_->sampling.width, kStays);
      erases = true;
      std::fill(erased_.begin() + x1, erased_.begin() + x2,
                e.value < 0 ? kNothing : static_cast<float>(e.value));
    }
    return erases;
  }

  template <bool kSet, typename V>
  void put_values(V* row, bool erases, float* out) {
    const int width = p_->sampling.width;
    if (!erases) return p_->scale.put<kSet>(row, width, out);
    for (int x = 0; x < width;) {
      int to = x;
      while (to < width && erased_[to] == erased_[x]) ++to;
      float* pixels = out + 3 * size_t(x);
      if (erased_[x] >= 0) std::fill(row + 3 * size_t(x), row + 3 * size_t(to), V(erased_[x]));
      if (erased_[x] != kNothing)
        p_->scale.put<kSet>(row + 3 * size_t(x), to - x, pixels);
      else if (kSet)
        std::fill_n(pixels, 3 * size_t(to - x), 0.0f);
      x = to;
    }
  }

  // In erased_, besides values.
  static constexpr float kStays = -1, kNothing = -2;

  const PreparedLayer* p_ = nullptr;
  int begin_ = 0, end_ = 0, first_ = 0;
  RowSampler sampler_;
  std::vector<float> row_, erased_;
  ByteRows bytes_;
  std::vector<uint8_t> scratch_;
};

/// What one thread needs for a band.
struct Workspace {
  std::vector<std::unique_ptr<BandLayer>> layers;
  std::vector<float> row;
};

/// Row y of the composition; what no layer covers is 0.
void put_row(const std::vector<PreparedLayer>& layers, int y, int64_t width, float* row,
             const Workspace& work) {
  bool first = true;
  for (size_t i = 0; i < layers.size(); ++i) {
    BandLayer& layer = *work.layers[i];
    if (!layer.has_row(y)) continue;
    if (first) {
      const ComposeLayer& l = *layers[i].layer;
      std::fill(row, row + 3 * int64_t{l.x1}, 0.0f);
      std::fill(row + 3 * int64_t{l.x2}, row + 3 * width, 0.0f);
      layer.put_row<true>(y, row);
    } else {
      layer.put_row<false>(y, row);
    }
    first = false;
  }
  if (first) std::fill_n(row, 3 * width, 0.0f);
}

template <typename T>
void run_band(const std::vector<PreparedLayer>& layers, int top, int bottom, int64_t width, T* out,
              Workspace& work) {
  while (work.layers.size() < layers.size()) work.layers.push_back(std::make_unique<BandLayer>());
  for (size_t i = 0; i < layers.size(); ++i) work.layers[i]->start(layers[i], top, bottom);
  const size_t count = size_t(width) * 3;
  for (int y = top; y < bottom; ++y, out += count) {
    float* row;
    if constexpr (std::is_same_v<T, float>) {
      row = out;
    } else {
      work.row.resize(count);
      row = work.row.data();
    }
    put_row(layers, y, width, row, work);
    if constexpr (!std::is_same_v<T, float>)
      for (size_t i = 0; i < count; ++i) out[i] = T(row[i]);
  }
}

}  // namespace

void compose(const std::vector<ComposeImage>& images, const std::vector<ComposeSource>& sources,
             const Normalisation& norm, Tensor& out) {
  const int64_t height = out.size(1), width = out.size(2);
  std::map<int, ColorStatistics> statistics;
  for (const auto& image : images)
    for (const auto& layer : image.layers)
      for (const auto& step : layer.color)
        if (needs_statistics(step.op) && !statistics.count(layer.source))
          statistics[layer.source] = color_statistics(sources[layer.source]);

  const ColorStatistics none;
  std::vector<std::vector<PreparedLayer>> prepared(images.size());
  for (size_t n = 0; n < images.size(); ++n)
    for (const auto& layer : images[n].layers) {
      const auto found = statistics.find(layer.source);
      prepared[n].push_back(prepare(layer, sources[layer.source],
                                    found == statistics.end() ? none : found->second, norm));
    }

  const int64_t bands = (height + kBandRows - 1) / kBandRows;
  const int64_t jobs = static_cast<int64_t>(images.size()) * bands;
  dispatch_floating(out.dtype(), [&](auto tag) {
    using T = decltype(tag);
    T* pixels = out.data<T>();
    std::exception_ptr error;
#pragma omp parallel if (jobs > 1)
    {
      Workspace work;
      // Bands differ in cost (padding is free): hand them out as threads become idle.
#pragma omp for schedule(dynamic, 1)
      for (int64_t job = 0; job < jobs; ++job) {
        try {
          const int64_t n = job / bands, top = job % bands * kBandRows;
          const int64_t bottom = std::min(height, top + kBandRows);
          run_band(prepared[n], static_cast<int>(top), static_cast<int>(bottom), width,
                   pixels + (n * height + top) * width * 3, work);
        } catch (...) {
#pragma omp critical(mixpl_compose_error)
          error = std::current_exception();
        }
      }
    }
    if (error) std::rethrow_exception(error);
  });
}

}  // namespace mixpl::cpu
