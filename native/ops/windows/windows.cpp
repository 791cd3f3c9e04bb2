#include "ops/windows/windows.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/context.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"
#include "ops/windows/windows_math.h"

namespace mixpl {
namespace {

void check_options(const Check& check, const WindowOptions& o) {
  check.in_range("size", static_cast<double>(o.size), 1, 64);
  check.in_range("shift", static_cast<double>(o.shift), 0, static_cast<double>(o.size - 1));
}

void check_map(const Check& check, int64_t height, int64_t width) {
  constexpr double kMost = 1 << 19;  // products of sizes stay far from 2^63
  check.in_range("height", static_cast<double>(height), 0, kMost);
  check.in_range("width", static_cast<double>(width), 0, kMost);
}

// Of an image.
int64_t windows_of(const WindowCall& c) {
  return WindowAxis::of(c.height, c.options).windows * WindowAxis::of(c.width, c.options).windows;
}

Shape map_shape(const WindowCall& c) { return {c.images, c.height, c.width, c.channels}; }

Shape windows_shape(const WindowCall& c) {
  return {c.images * windows_of(c), c.options.size * c.options.size, c.channels};
}

Tensor partition(const WindowCall& c, const Tensor& x) {
  Tensor windows = Tensor::empty(windows_shape(c), x.dtype(), x.device());
  if (windows.numel()) MIXPL_DISPATCH(x.device(), window_partition, c, x, windows);
  return windows;
}

Tensor merge(const WindowCall& c, const Tensor& windows, const Tensor& residual) {
  Tensor y = Tensor::empty(map_shape(c), windows.dtype(), windows.device());
  if (y.numel()) MIXPL_DISPATCH(windows.device(), window_merge, c, windows, residual, y);
  return y;
}

}  // namespace

Tensor window_partition(const Tensor& x, const WindowOptions& options) {
  const Check check("windowPartition");
  check.floating("x", x);
  check.rank("x", x, 4, "N, H, W, C");
  check_options(check, options);
  const WindowCall c{x.size(0), x.size(1), x.size(2), x.size(3), options};
  const Tensor windows = partition(c, x);
  record(windows, {x}, [c](const Tensor& dwindows) { return Gradients{merge(c, dwindows, {})}; });
  if (is_traced())
    note("windowPartition", {x}, {windows},
         {{"size", static_cast<double>(options.size)},
          {"shift", static_cast<double>(options.shift)}});
  return windows;
}

Tensor window_merge(const Tensor& windows, int64_t height, int64_t width,
                    const WindowOptions& options, const Tensor& residual) {
  const Check check("windowMerge");
  check.floating("windows", windows);
  check.rank("windows", windows, 3, "N R S, size^2, C");
  check_options(check, options);
  check_map(check, height, width);
  WindowCall c{0, height, width, windows.size(2), options};
  const int64_t of_image = windows_of(c);
  if (of_image == 0 ? windows.size(0) != 0 : windows.size(0) % of_image != 0)
    throw ShapeError(str("windowMerge: axis 0 of windows must be a multiple of ", of_image,
                         " (windows of a map), got ", windows.shape()));
  // Of maps without cells a residual alone tells the number.
  c.images = of_image                                     ? windows.size(0) / of_image
             : residual.defined() && residual.rank() == 4 ? residual.size(0)
                                                          : 0;
  check.shape("windows", windows, windows_shape(c), "N R S, size^2, C");
  if (residual.defined()) {
    check.dtype("residual", residual, windows.dtype());
    check.shape("residual", residual, map_shape(c), "the merged map");
    check.same_device("residual", residual, windows);
  }
  const Tensor y = merge(c, windows, residual);
  record(y, {windows, residual},
         [c, cut = windows.requires_grad(), whole = residual.requires_grad()](const Tensor& dy) {
           return Gradients{cut ? partition(c, dy) : Tensor(), whole ? dy : Tensor()};
         });
  if (is_traced())
    note("windowMerge", {windows, residual}, {y},
         {{"size", static_cast<double>(options.size)},
          {"shift", static_cast<double>(options.shift)}});
  return y;
}

Tensor window_mask(int64_t height, int64_t width, const WindowOptions& options, Device device) {
  const Check check("windowMask");
  check_options(check, options);
  check_map(check, height, width);
  if (options.shift == 0) return {};
  const WindowCall c{1, height, width, 1, options};
  const int64_t tokens = options.size * options.size;
  Tensor mask = Tensor::empty({windows_of(c), tokens, tokens}, DType::u8, device);
  if (mask.numel()) MIXPL_DISPATCH(device, window_mask, c, mask);
  return mask;
}

namespace {

WindowOptions read_options(const Options& o) {
  WindowOptions options;
  options.size = o.integer("size", options.size);
  options.shift = o.integer("shift", options.shift);
  return options;
}

// windowPartition: x; { size, shift }. windowMerge: windows, maybe residual; and { height, width }.
// windowMask: nothing; { height, width, size, shift }; gives nothing where there is no shift.
const bool registered =
    register_op("windowPartition",
                [](const std::vector<Tensor>& in, const Options& o) {
                  if (in.size() != 1)
                    throw ShapeError(str("windowPartition: needs 1 tensor, got ", in.size()));
                  return std::vector<Tensor>{window_partition(in[0], read_options(o))};
                }) &&
    register_op("windowMerge",
                [](const std::vector<Tensor>& in, const Options& o) {
                  if (in.empty() || in.size() > 2)
                    throw ShapeError(str("windowMerge: needs 1 or 2 tensors, got ", in.size()));
                  return std::vector<Tensor>{window_merge(in[0], o.integer("height", 1),
                                                          o.integer("width", 1), read_options(o),
                                                          in.size() > 1 ? in[1] : Tensor())};
                }) &&
    register_op("windowMask", [](const std::vector<Tensor>&, const Options& o) {
      const Tensor mask = window_mask(o.integer("height", 1), o.integer("width", 1),
                                      read_options(o), Context::current().device);
      return mask.defined() ? std::vector<Tensor>{mask} : std::vector<Tensor>{};
    });

}  // namespace

}  // namespace mixpl
