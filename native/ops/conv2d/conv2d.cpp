#include "ops/conv2d/conv2d.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/conv2d/conv2d_gradients.h"
#include "ops/registry.h"

namespace mixpl {

Shape conv2d_shape(const Shape& x, const Shape& weight, const Conv2dOptions& o) {
  const auto out = [&](int64_t size, int64_t kernel) {
    const int64_t reach = o.dilation * (kernel - 1) + 1;
    return size + 2 * o.padding < reach ? 0 : (size + 2 * o.padding - reach) / o.stride + 1;
  };
  return {x[0], out(x[1], weight[1]), out(x[2], weight[2]), weight[0]};
}

DType filter_type(Device device, int64_t kernel, const Conv2dOptions& options, DType compute) {
  const bool narrow =
      compute == DType::bf16 && MIXPL_DISPATCH(device, takes_bf16_filters, kernel, options);
  return narrow ? DType::bf16 : DType::f32;
}

namespace {

/// Checks what conv2d was given; returns the output's shape.
Shape check_arguments(const Tensor& x, const Tensor& weight, const Tensor& bias,
                      const Conv2dOptions& options, const Tensor& residual) {
  const Check check("conv2d");
  check.floating("x", x);
  check.rank("x", x, 4, "N, H, W, C");
  if (weight.dtype() != DType::bf16 || x.dtype() != DType::bf16 || x.device().is_cuda())
    check.dtype("weight", weight, DType::f32);
  check.rank("weight", weight, 4, "K, R, S, C / groups");
  check.at_least("stride", options.stride, 1);
  check.at_least("dilation", options.dilation, 1);
  check.at_least("padding", options.padding, 0);
  check.at_least("groups", options.groups, 1);
  if (weight.size(1) < 1 || weight.size(2) < 1)
    throw ShapeError(
        str("conv2d: weight must have a kernel of one pixel at least, got ", weight.shape()));
  if (weight.size(0) % options.groups)
    throw ShapeError(str("conv2d: groups must divide the output channels, got ", options.groups,
                         " groups and weight ", weight.shape()));
  check.size("x", x, 3, weight.size(3) * options.groups, "groups times the last axis of weight");
  check.same_device("weight", weight, x);
  if (bias.defined()) {
    check.dtype("bias", bias, DType::f32);
    check.shape("bias", bias, {weight.size(0)}, "one a filter");
  }
  const Shape shape = conv2d_shape(x.shape(), weight.shape(), options);
  if (residual.defined()) {
    check.dtype("residual", residual, x.dtype());
    check.shape("residual", residual, shape, "the output's shape");
  }
  return shape;
}

/// A trace's numbers of a convolution.
Trace::Numbers numbers_of(const Conv2dOptions& o) {
  return {{"stride", o.stride},
          {"padding", o.padding},
          {"dilation", o.dilation},
          {"groups", o.groups},
          {"relu", o.relu}};
}

/// The values that x's gradient may leave out by, or undefined.
Tensor mask_of(const Tensor& x) {
  const bool masks = x.impl()->rectified && MIXPL_DISPATCH(x.device(), masks_data_gradients);
  return masks ? x : Tensor();
}
/// Says of a gradient by what it was masked, or that it was not.
void mark_masked(const Tensor& gradient, const Tensor& mask) {
  gradient.impl()->masked_by = mask.defined() ? mask.raw() : nullptr;
}
/// A gradient to write, or one to add to: what `t` has gathered.
struct Gathered {
  Tensor sum;
  bool add;

  Gathered(const Tensor& t, DType type) : sum(take_grad(t)), add(sum.defined()) {
    if (!add) sum = Tensor::empty(t.shape(), type, t.device());
  }
};
bool is_masked_by(const Tensor& gradient, const Tensor& values) {
  return gradient.impl()->masked_by == values.raw() && values.numel() > 0;
}

}  // namespace

void forget_packed(const Tensor& filters) {
  if (filters.device().is_cpu()) filters.forget_derived();
}

void mark_rectified(const Tensor& y) { y.impl()->rectified = y.requires_grad(); }

Gradients ConvGradients::operator()(Tensor dy) const {
  Gradients grads(4);
  const Tensor mask = relu.defined() && !is_masked_by(dy, relu) ? relu : Tensor();
  const auto pad = [&](const Tensor& t) {
    return MIXPL_DISPATCH(x.device(), pad_gradient, t, filters.shape(), options);
  };
  // A handle of its own: it is masked by nothing of the residual's.
  if (residual.requires_grad() && !mask.defined()) grads[3] = dy.detach();
  dy = dy.alias(out);
  // First where it can be: sums are then read in chunks, those of zeros left out.
  if (!mask.defined()) dy = pad(dy);
  if (mask.defined() || bias.requires_grad()) {
    Tensor masked = !mask.defined() || dy.unique() ? dy : Tensor::empty_like(dy);
    bool add = false;
    if (bias.requires_grad()) {
      const Gathered dbias(bias, DType::f32);
      grads[2] = dbias.sum;
      add = dbias.add;
    }
    MIXPL_DISPATCH(x.device(), mask_and_column_sum, mask, dy, masked, grads[2], add);
    dy = masked;
  }
  if (residual.requires_grad() && mask.defined()) grads[3] = dy.detach();
  dy = pad(dy);
  // x's first: packed filters are then not in memory beside the gradient of the weight.
  if (x.requires_grad()) {
    const Gathered gathered(x, x.dtype());
    grads[0] = gathered.sum;
    const Tensor open = mask_of(x);
    Tensor dx = gathered.sum.alias(in);
    MIXPL_DISPATCH(x.device(), conv2d_backward_data, dy, filters, options, dx, gathered.add, open);
    mark_masked(grads[0], open);
  }
  forget_packed(filters);
  if (weight.requires_grad()) {
    const Gathered dweight(weight, DType::f32);
    grads[1] = dweight.sum;
    Tensor dfilters = dweight.sum.alias(filters.shape());
    MIXPL_DISPATCH(x.device(), conv2d_backward_weight, x.alias(in), dy, options, dfilters,
                   dweight.add);
  }
  return grads;
}

Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
              const Conv2dOptions& options, const Tensor& residual) {
  const Shape shape = check_arguments(x, weight, bias, options, residual);
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  MIXPL_DISPATCH(x.device(), conv2d_forward, x, weight, bias, residual, options, y);
  record(y, {x, weight, bias, residual},
         ConvGradients{x, weight, bias, residual, x.shape(), shape, weight, options,
                       options.relu ? y.detach() : Tensor()});
  if (y.requires_grad()) forget_packed(weight);
  if (options.relu) mark_rectified(y);
  if (is_traced()) note("conv2d", {x, weight, bias, residual}, {y}, numbers_of(options));
  return y;
}

namespace {

/// What of a list of maps has something to compute.
struct SomeLevels {
  std::vector<size_t> levels;
  std::vector<Tensor> of(const std::vector<Tensor>& all) const {
    std::vector<Tensor> some;
    for (size_t l : levels) some.push_back(all[l]);
    return some;
  }
};
SomeLevels with_values(const std::vector<Tensor>& maps) {
  SomeLevels some;
  for (size_t l = 0; l < maps.size(); ++l)
    if (maps[l].defined() && maps[l].numel()) some.levels.push_back(l);
  return some;
}

/// As many as a launch takes, from `first`.
std::vector<Tensor> some_of(const std::vector<Tensor>& maps, size_t first) {
  return {maps.begin() + first, maps.begin() + std::min(first + kMostConvLevels, maps.size())};
}

}  // namespace

std::vector<Tensor> conv2d(const std::vector<Tensor>& xs, const Tensor& weight, const Tensor& bias,
                           const Conv2dOptions& options, const std::vector<Tensor>& residuals) {
  const Check check("conv2d");
  if (!residuals.empty() && residuals.size() != xs.size())
    throw ShapeError(str("conv2d: residuals must be one per map (", xs.size(), ") or none, got ",
                         residuals.size()));
  for (const Tensor& x : xs) {
    check.dtype("x", x, xs[0].dtype());
    check.same_device("x", x, xs[0]);
  }
  std::vector<Tensor> ys;
  if (xs.size() > kMostConvLevels) {
    for (size_t first = 0; first < xs.size(); first += kMostConvLevels)
      for (const Tensor& y : conv2d(some_of(xs, first), weight, bias, options,
                                    residuals.empty() ? residuals : some_of(residuals, first)))
        ys.push_back(y);
    return ys;
  }
  const auto residual_of = [&](size_t l) { return residuals.empty() ? Tensor() : residuals[l]; };
  for (size_t l = 0; l < xs.size(); ++l) {
    const Tensor& x = xs[l];
    const Shape shape = check_arguments(x, weight, bias, options, residual_of(l));
    ys.push_back(Tensor::empty(shape, x.dtype(), x.device()));
  }
  const SomeLevels some = with_values(ys);
  if (!some.levels.empty())
    MIXPL_DISPATCH(weight.device(), conv2d_forward, some.of(xs), weight, bias,
                   residuals.empty() ? residuals : some.of(residuals), options, some.of(ys));
  std::vector<Tensor> inputs = xs, masks;
  inputs.insert(inputs.end(), {weight, bias});
  inputs.insert(inputs.end(), residuals.begin(), residuals.end());
  if (options.relu)
    for (const Tensor& y : ys) masks.push_back(y.detach());
  record(ys, inputs, [=](std::vector<Tensor> all) {
    Gradients grads(inputs.size());
    Tensor &dweight = grads[xs.size()], &dbias = grads[xs.size() + 1];
    const SomeLevels some = with_values(all);
    std::vector<Tensor> dys;
    std::vector<bool> gathered(xs.size());
    for (size_t l = 0; l < xs.size(); ++l) {
      if (!all[l].defined() || !xs[l].requires_grad()) continue;
      if (all[l].numel()) grads[l] = take_grad(xs[l]);
      gathered[l] = grads[l].defined();
      if (gathered[l]) continue;
      grads[l] = all[l].numel() ? Tensor::empty_like(xs[l])
                                : Tensor::zeros(xs[l].shape(), xs[l].dtype(), xs[l].device());
    }
    for (size_t l : some.levels) dys.push_back(std::move(all[l]));
    std::vector<Tensor> by(dys.size());
    bool any_mask = false;
    if (options.relu)
      for (size_t i = 0; i < dys.size(); ++i) {
        const Tensor& y = masks[some.levels[i]];
        if (!is_masked_by(dys[i], y)) by[i] = y, any_mask = true;
      }
    // Handles of their own: they are masked by nothing of the residual's.
    const auto give_residuals = [&](bool masked) {
      for (size_t i = 0; i < dys.size() && !residuals.empty(); ++i) {
        const size_t l = some.levels[i];
        if (by[i].defined() == masked && residuals[l].requires_grad())
          grads[xs.size() + 2 + l] = dys[i].detach();
      }
    };
    const auto pad = [&] {
      dys = MIXPL_DISPATCH(weight.device(), pad_gradient, dys, weight.shape(), options);
    };
    give_residuals(false);
    // First where it can be: sums are then read in chunks, those of zeros left out.
    if (!any_mask) pad();
    bool add_bias = false;
    if (bias.requires_grad() && dys.empty()) {
      dbias = Tensor::zeros(bias.shape(), DType::f32, bias.device());
    } else if (bias.requires_grad()) {
      const Gathered sum(bias, DType::f32);
      dbias = sum.sum;
      add_bias = sum.add;
    }
    if (!dys.empty() && (any_mask || dbias.defined())) {
      std::vector<Tensor> masked;
      for (size_t i = 0; i < dys.size(); ++i)
        masked.push_back(!by[i].defined() || dys[i].unique() ? dys[i] : Tensor::empty_like(dys[i]));
      MIXPL_DISPATCH(weight.device(), mask_and_column_sum, by, dys, masked, dbias, add_bias);
      dys = masked;
    }
    give_residuals(true);
    pad();
    std::vector<Tensor> from, to, open;
    std::vector<bool> add;
    for (size_t i = 0; i < dys.size(); ++i) {
      const Tensor& dx = grads[some.levels[i]];
      if (!dx.defined() || !dx.numel()) continue;
      from.push_back(dys[i]);
      to.push_back(dx);
      add.push_back(gathered[some.levels[i]]);
      open.push_back(mask_of(xs[some.levels[i]]));
      mark_masked(dx, open.back());
    }
    if (!from.empty())
      MIXPL_DISPATCH(weight.device(), conv2d_backward_data, from, weight, options, to, add, open);
    forget_packed(weight);
    if (weight.requires_grad()) {
      const Gathered sum(weight, DType::f32);
      dweight = sum.sum;
      MIXPL_DISPATCH(weight.device(), conv2d_backward_weight, some.of(xs), dys, options, dweight,
                     sum.add);
    }
    return grads;
  });
  if (!ys.empty() && ys[0].requires_grad()) forget_packed(weight);
  if (options.relu)
    for (const Tensor& y : ys) mark_rectified(y);
  for (size_t l = 0; is_traced() && l < xs.size(); ++l)
    note("conv2d", {xs[l], weight, bias, residual_of(l)}, {ys[l]}, numbers_of(options));
  return ys;
}

namespace {

Conv2dOptions read_options(const Options& o) {
  Conv2dOptions options;
  options.stride = static_cast<int>(o.integer("stride", 1));
  options.padding = static_cast<int>(o.integer("padding", 0));
  options.dilation = static_cast<int>(o.integer("dilation", 1));
  options.groups = static_cast<int>(o.integer("groups", 1));
  options.relu = o.boolean("relu", false);
  return options;
}

// Inputs: x, weight, then bias if {bias: true}, then residual if {residual: true}.
const bool registered = register_op("conv2d", [](const std::vector<Tensor>& in, const Options& o) {
  const Conv2dOptions options = read_options(o);
  const bool bias = o.boolean("bias", false), residual = o.boolean("residual", false);
  const size_t wanted = 2 + bias + residual;
  if (in.size() != wanted)
    throw ShapeError(str("conv2d: needs ", wanted, " tensors, got ", in.size()));
  return std::vector<Tensor>{
      conv2d(in[0], in[1], bias ? in[2] : Tensor(), options, residual ? in[2 + bias] : Tensor())};
});

// Inputs: maps, weight, then bias if {bias: true}; outputs: one per map.
const bool registered_levels =
    register_op("conv2dLevels", [](const std::vector<Tensor>& in, const Options& o) {
      const Conv2dOptions options = read_options(o);
      const bool bias = o.boolean("bias", false);
      const size_t others = 1 + bias;
      if (in.size() < others)
        throw ShapeError(str("conv2d: needs ", others, " tensors at least, got ", in.size()));
      const std::vector<Tensor> maps(in.begin(), in.end() - others);
      return conv2d(maps, in[maps.size()], bias ? in.back() : Tensor(), options);
    });

// Gradients by themselves, for measuring. Inputs: x, weight, dy of conv2d; outputs: dx or dweight.
const auto gradient_op = [](bool of_data) {
  return [of_data](const std::vector<Tensor>& in, const Options& o) {
    const Conv2dOptions options = read_options(o);
    if (in.size() != 3)
      throw ShapeError(str("conv2d: needs x, weight and dy, got ", in.size(), " tensors"));
    const Shape shape = check_arguments(in[0], in[1], Tensor(), options, Tensor());
    const Check check("conv2d");
    check.dtype("dy", in[2], in[0].dtype());
    check.same_device("dy", in[2], in[0]);
    check.shape("dy", in[2], shape, "as the output");
    Tensor out = of_data ? Tensor::empty_like(in[0])
                         : Tensor::empty(in[1].shape(), DType::f32, in[1].device());
    if (of_data)
      MIXPL_DISPATCH(out.device(), conv2d_backward_data, in[2], in[1], options, out);
    else
      MIXPL_DISPATCH(out.device(), conv2d_backward_weight, in[0], in[2], options, out);
    return std::vector<Tensor>{out};
  };
};
const bool registered_data = register_op("conv2dDataGradient", gradient_op(true));
const bool registered_weight = register_op("conv2dWeightGradient", gradient_op(false));

}  // namespace

}  // namespace mixpl
