#include "detect/token_grid.h"

#include <bit>
#include <cmath>

#include "autograd/tape.h"
#include "core/check.h"
#include "core/context.h"
#include "core/launch.h"
#include "core/part.h"
#include "core/trace.h"
#include "detect/token_grid_math.h"
#include "ops/registry.h"

namespace mixpl {

int64_t TokenGrid::tokens() const {
  int64_t sum = 0;
  for (int64_t count : counts()) sum += count;
  return sum;
}

std::vector<int64_t> TokenGrid::counts() const {
  std::vector<int64_t> out;
  for (const MapSize& map : maps) out.push_back(map.height * map.width);
  return out;
}

namespace {

constexpr int64_t kMostCells = 1 << 30;  // of all levels of an image: kernels index in 32 bits

// Cells i with floor(i * pixels / cells) < size: those below size * cells / pixels.
int64_t valid_cells(int64_t cells, int64_t pixels, float size) {
  if (!(size < static_cast<float>(pixels))) return cells;
  const auto covered = static_cast<int64_t>(std::ceil(size));
  return std::min(cells, (covered * cells + pixels - 1) / pixels);
}

}  // namespace

TokenGrid token_grid(const std::vector<MapSize>& maps, MapSize padded,
                     const std::vector<ImageSize>& sizes, Device device) {
  const Check check("tokenGrid");
  if (maps.empty() || maps.size() > kMostMaps)
    throw ShapeError(str("tokenGrid: maps must be 1 to ", kMostMaps, ", got ", maps.size()));
  double cells = 0;
  for (const MapSize& map : maps) {
    if (map.height < 1 || map.width < 1)
      throw ShapeError(str("tokenGrid: maps must have cells, got ", map.height, " x ", map.width));
    cells += static_cast<double>(map.height) * static_cast<double>(map.width);
  }
  check.in_range("cells of the maps", cells, 1, static_cast<double>(kMostCells));
  check.in_range("padded height", static_cast<double>(padded.height), 1, kMostCells);
  check.in_range("padded width", static_cast<double>(padded.width), 1, kMostCells);

  TokenGrid grid;
  grid.maps = maps;
  grid.images = static_cast<int64_t>(sizes.size());
  const auto levels = static_cast<int64_t>(maps.size());
  const int64_t numbers = grid.images * levels * 2;
  // Counts and ratios in one tensor, which a GPU gets in one copy; parts begin at 16 bytes.
  const int64_t second = (numbers + 3) / 4 * 4;
  std::vector<int32_t> both(second + numbers);
  int64_t at = 0;
  for (const ImageSize& size : sizes) {
    for (const float side : {size.height, size.width})
      if (!(side > 0)) throw RangeError(str("tokenGrid: sizes must be > 0, got ", side));
    for (const MapSize& map : maps) {
      const int64_t rows = valid_cells(map.height, padded.height, size.height),
                    columns = valid_cells(map.width, padded.width, size.width);
      grid.padded |= rows < map.height || columns < map.width;
      const auto ratio = [](int64_t some, int64_t all) {
        return std::bit_cast<int32_t>(static_cast<float>(some) / static_cast<float>(all));
      };
      both[second + at] = ratio(columns, map.width);
      both[at++] = static_cast<int32_t>(rows);
      both[second + at] = ratio(rows, map.height);
      both[at++] = static_cast<int32_t>(columns);
    }
  }
  const Tensor whole = Tensor::from(both, {static_cast<int64_t>(both.size())}).to(device);
  const Shape shape{grid.images, levels, 2};
  grid.valid = part_of(whole, 0, shape, DType::i32);
  grid.ratios = part_of(whole, second * size_of(DType::f32), shape, DType::f32);
  return grid;
}

namespace {

GridView view_of(const TokenGrid& grid) {
  GridView view{Pyramid(grid.counts()), {}, grid.valid.data<int32_t>()};
  for (size_t l = 0; l < grid.maps.size(); ++l)
    view.width[l] = static_cast<int32_t>(grid.maps[l].width);
  return view;
}

Tensor per_token(const TokenGrid& grid, DType dtype, int64_t numbers) {
  return Tensor::empty({grid.images, grid.tokens(), numbers}, dtype, grid.valid.device());
}

Tensor mask_for(const TokenGrid& grid) {
  return Tensor::empty({grid.images, grid.tokens()}, DType::u8, grid.valid.device());
}

}  // namespace

Tensor padding_mask(const TokenGrid& grid) {
  if (!grid.padded) return {};
  Tensor mask = mask_for(grid);
  const PaddingView view{view_of(grid), mask.data<uint8_t>()};
  MIXPL_DISPATCH(mask.device(), mark_padding, grid.images, view);
  return mask;
}

Tensor sine_positions(const TokenGrid& grid, const SineOptions& options, DType dtype) {
  const Check check("sinePositions");
  if (options.channels < 4 || options.channels % 4 != 0)
    throw RangeError(
        str("sinePositions: channels must be a multiple of 4, got ", options.channels));
  if (!(options.temperature > 0) || !std::isfinite(options.temperature))
    throw RangeError(str("sinePositions: temperature must be > 0, got ", options.temperature));
  if (!std::isfinite(options.offset))
    throw RangeError(str("sinePositions: offset must be finite, got ", options.offset));
  std::vector<int64_t> rows, lines;
  for (const MapSize& map : grid.maps) {
    rows.push_back(map.height);
    lines.insert(lines.end(), {map.height, map.width});
  }
  Tensor out = per_token(grid, dtype, options.channels);
  check.floating("dtype", out);
  const GridView cells = view_of(grid);
  SineView view{cells.tokens,  Pyramid(rows), Pyramid(lines),       {},
                cells.valid,   grid.images,   options.channels / 4, std::log2(options.temperature),
                options.offset};
  std::copy_n(cells.width, grid.maps.size(), view.width);
  Tensor table =
      Tensor::empty({grid.images, view.lines.count(), options.channels / 2}, dtype, out.device());
  MIXPL_DISPATCH(out.device(), encode_places, view, table, out);
  return out;
}

Tensor token_references(const TokenGrid& grid) {
  Tensor out = per_token(grid, DType::f32, 2);
  const ReferenceView view{view_of(grid), out.data<float>()};
  MIXPL_DISPATCH(out.device(), place_references, grid.images, view);
  return out;
}

TokenProposals token_proposals(const TokenGrid& grid) {
  TokenProposals out{per_token(grid, DType::f32, 4), mask_for(grid)};
  ProposalView view{view_of(grid),
                    {},
                    {},
                    reinterpret_cast<ProposalLogits*>(out.logits.data<float>()),
                    out.mask.data<uint8_t>()};
  float side = 0.05f;
  for (size_t l = 0; l < grid.maps.size(); ++l, side *= 2) {
    view.inner_side[l] = is_inner(side);
    view.side_logit[l] = view.inner_side[l] ? logit_of(side) : 0;
  }
  MIXPL_DISPATCH(out.mask.device(), make_proposals, grid.images, view);
  return out;
}

Tensor coordinate_encoding(const Tensor& boxes, int64_t each, CoordinateOrder order, DType dtype,
                           const Tensor& ratios) {
  const Check check("coordinateEncoding");
  check.dtype("boxes", boxes, DType::f32);
  check.rank("boxes", boxes, 3, "N, Q, 4 or 2");
  const int64_t numbers = boxes.size(2);
  if (numbers != 4 && numbers != 2)
    throw ShapeError(
        str("coordinateEncoding: boxes must be of 4 or 2 numbers, got ", boxes.shape()));
  if (each < 2 || each % 2 != 0)
    throw RangeError(str("coordinateEncoding: each must be an even number, got ", each));
  Tensor out = Tensor::empty({boxes.size(0), boxes.size(1), numbers * each}, dtype, boxes.device());
  check.floating("dtype", out);
  CoordinateView view{boxes.data<float>(), boxes.size(0) * boxes.size(1), numbers, each / 2,
                      std::log2(10000.0f), order == CoordinateOrder::yxwh};
  if (ratios.defined()) {
    check.dtype("ratios", ratios, DType::f32);
    check.rank("ratios", ratios, 3, "N, L, 2");
    check.size("ratios", ratios, 0, boxes.size(0), "the images of boxes");
    check.size("ratios", ratios, 2, 2, "x and y");
    check.at_least("levels of ratios", static_cast<double>(ratios.size(1)), 1);
    check.same_device("ratios", ratios, boxes);
    view.ratios = ratios.data<float>();
    view.of_image = boxes.size(1) * numbers;
    view.levels = ratios.size(1);
  }
  MIXPL_DISPATCH(boxes.device(), encode_coordinates, view, out);
  record(out, {boxes}, [boxes, ratios, view](const Tensor& dout) {  // which the view points to
    Tensor dboxes = Tensor::empty_like(boxes);
    MIXPL_DISPATCH(boxes.device(), encode_coordinates_backward, view, dout, dboxes);
    return Gradients{dboxes};
  });
  if (is_traced())
    note("coordinateEncoding", {boxes, ratios}, {out},
         {{"each", static_cast<double>(each)}, {"xFirst", order == CoordinateOrder::xywh}});
  return out;
}

namespace {

// { heights, widths } of the maps, { padded: [height, width], sizes: [height, width, ...] } of the
// images; on the current device.
TokenGrid read_grid(const char* op, const Options& o) {
  const auto whole = [&](const char* key) {
    std::vector<int64_t> out;
    for (double number : o.numbers(key, {})) {
      Check(op).in_range(key, number, 0, 1 << 20);
      out.push_back(static_cast<int64_t>(number));
    }
    return out;
  };
  const std::vector<int64_t> heights = whole("heights"), widths = whole("widths"),
                             padded = whole("padded");
  const std::vector<double> numbers = o.numbers("sizes", {});
  if (heights.size() != widths.size() || padded.size() != 2 || numbers.size() % 2 != 0)
    throw ConfigError(str(op,
                          ": needs heights and widths of the maps, the padded height and "
                          "width, and pairs of sizes"));
  std::vector<MapSize> maps;
  for (size_t l = 0; l < heights.size(); ++l) maps.push_back({heights[l], widths[l]});
  std::vector<ImageSize> sizes;
  for (size_t i = 0; i < numbers.size(); i += 2)
    sizes.push_back({static_cast<float>(numbers[i]), static_cast<float>(numbers[i + 1])});
  return token_grid(maps, {padded[0], padded[1]}, sizes, Context::current().device);
}

CoordinateOrder read_order(const std::string& text) {
  if (text == "yxwh") return CoordinateOrder::yxwh;
  if (text == "xywh") return CoordinateOrder::xywh;
  throw ConfigError(str("coordinateEncoding: order must be 'yxwh' or 'xywh', got '", text, "'"));
}

using Tensors = std::vector<Tensor>;

// tokenGrid: valid, ratios. paddingMask: nothing without padding. sinePositions: { channels,
// temperature, offset } and the grid's options. coordinateEncoding: boxes; { each, order }.
const bool registered =
    register_op("tokenGrid",
                [](const Tensors&, const Options& o) {
                  const TokenGrid grid = read_grid("tokenGrid", o);
                  return Tensors{grid.valid, grid.ratios};
                }) &&
    register_op("paddingMask",
                [](const Tensors&, const Options& o) {
                  const Tensor mask = padding_mask(read_grid("paddingMask", o));
                  return mask.defined() ? Tensors{mask} : Tensors{};
                }) &&
    register_op("sinePositions",
                [](const Tensors&, const Options& o) {
                  SineOptions options;
                  options.channels = o.integer("channels", options.channels);
                  options.temperature =
                      static_cast<float>(o.number("temperature", options.temperature));
                  options.offset = static_cast<float>(o.number("offset", options.offset));
                  return Tensors{sine_positions(read_grid("sinePositions", o), options,
                                                Context::current().compute)};
                }) &&
    register_op("tokenReferences",
                [](const Tensors&, const Options& o) {
                  return Tensors{token_references(read_grid("tokenReferences", o))};
                }) &&
    register_op("tokenProposals",
                [](const Tensors&, const Options& o) {
                  const TokenProposals p = token_proposals(read_grid("tokenProposals", o));
                  return Tensors{p.logits, p.mask};
                }) &&
    register_op("coordinateEncoding", [](const Tensors& in, const Options& o) {
      if (in.size() != 1 && in.size() != 2)
        throw ShapeError(str("coordinateEncoding: needs 1 or 2 tensors, got ", in.size()));
      return Tensors{
          coordinate_encoding(in[0], o.integer("each", 128), read_order(o.text("order", "yxwh")),
                              Context::current().compute, in.size() > 1 ? in[1] : Tensor())};
    });

}  // namespace

}  // namespace mixpl
