#include "detect/set_matching.h"

#include <algorithm>

#include "core/check.h"
#include "detect/set_matching_costs.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

void check_options(const Check& check, const SetMatchingOptions& o) {
  check.at_least("classification", o.classification, 0);
  check.at_least("boxes", o.boxes, 0);
  check.at_least("iou", o.iou, 0);
  check.in_range("alpha", o.alpha, 0, 1);
  check.at_least("gamma", o.gamma, 0);
  // What is added to must stay a normal number, whose logarithm is taken.
  check.in_range("eps", o.eps, 1e-30, 1);
}

void check_inputs(const Check& check, const std::vector<Tensor>& logits,
                  const std::vector<Tensor>& boxes, const Truth& truth, const Tensor& sizes,
                  const SetMatchingOptions& options) {
  check_options(check, options);
  if (logits.size() != boxes.size())
    throw ShapeError(str(check.op(), ": boxes must have one entry a layer (", logits.size(),
                         "), got ", boxes.size()));
  for (size_t l = 0; l < logits.size(); ++l) {
    check.floating("logits", logits[l]);
    check.rank("logits", logits[l], 3, "N, Q, C");
    check.size("logits", logits[l], 0, truth.images(), "images");
    check.shape("logits", logits[l], logits[0].shape(), "as of the first layer");
    check.dtype("logits", logits[l], logits[0].dtype());
    check.same_device("logits", logits[l], logits[0]);
    check.dtype("boxes", boxes[l], DType::f32);
    check.shape("boxes", boxes[l], {logits[0].size(0), logits[0].size(1), 4}, "one per query");
    check.same_device("boxes", boxes[l], logits[0]);
  }
  if (logits.empty()) return;
  check.same_device("truth", truth.boxes, logits[0]);
  check.dtype("sizes", sizes, DType::f32);
  check.shape("sizes", sizes, {truth.images(), 2}, "height and width of each image");
  check.same_device("sizes", sizes, logits[0]);
  if (truth.total() > 0 && logits[0].size(2) == 0)
    throw ShapeError(str(check.op(), ": logits must have classes, got ", logits[0].shape()));
  if (logits[0].size(1) >= 1 << 29)  // as objects: see Reach
    throw ShapeError(str(check.op(), ": queries must be below 2^29, got ", logits[0].size(1)));
}

MatchView view_of(const Tensor* logits, const Tensor* boxes, int64_t layers, const Truth& truth,
                  const Tensor& sizes, const SetMatchingOptions& options) {
  MatchView view{{},
                 layers,
                 logits[0].size(0),
                 logits[0].size(1),
                 logits[0].size(2),
                 logits[0].dtype(),
                 TruthView(truth),
                 truth.total(),
                 truth.most(),
                 sizes_in(sizes),
                 options};
  for (int64_t l = 0; l < layers; ++l) {
    view.layers[l].logits = logits[l].raw();
    view.layers[l].boxes = reinterpret_cast<const CentredBox*>(boxes[l].data<float>());
  }
  return view;
}

}  // namespace

Tensor query_costs(const Tensor& logits, const Tensor& boxes, const Truth& truth,
                   const Tensor& sizes, const SetMatchingOptions& options) {
  check_inputs(Check("queryCosts"), {logits}, {boxes}, truth, sizes, options);
  const Tensor costs = Tensor::empty({truth.total(), logits.size(1)}, DType::f32, logits.device());
  const MatchView view = view_of(&logits, &boxes, 1, truth, sizes, options);
  MIXPL_DISPATCH(logits.device(), query_costs, view, costs.data<float>());
  return costs;
}

std::vector<QueryTargets> match_queries(const std::vector<Tensor>& logits,
                                        const std::vector<Tensor>& boxes, const Truth& truth,
                                        const Tensor& sizes, const SetMatchingOptions& options) {
  check_inputs(Check("matchQueries"), logits, boxes, truth, sizes, options);
  std::vector<QueryTargets> targets;
  if (logits.empty()) return targets;
  const Device device = logits[0].device();
  const int64_t images = logits[0].size(0), queries = logits[0].size(1);
  int64_t positives = 0;
  for (int64_t count : truth.counts) positives += std::min(count, queries);
  for (size_t l = 0; l < logits.size(); ++l)
    targets.push_back({Tensor::empty({images, queries}, DType::i32, device),
                       Tensor::empty({images, queries, 4}, DType::f32, device),
                       Tensor::empty({images, queries}, DType::f32, device),
                       Tensor::empty({images, queries}, DType::i32, device), positives});
  for (size_t l = 0; l < logits.size(); l += kMostLayers) {
    const int64_t layers = std::min<int64_t>(kMostLayers, logits.size() - l);
    MatchView view = view_of(&logits[l], &boxes[l], layers, truth, sizes, options);
    for (int64_t k = 0; k < layers; ++k) {
      const QueryTargets& to = targets[l + k];
      MatchView::Layer& layer = view.layers[k];
      layer.labels = to.labels.data<int32_t>();
      layer.objects = to.objects.data<int32_t>();
      layer.targets = reinterpret_cast<CentredBox*>(to.boxes.data<float>());
      layer.weights = to.weights.data<float>();
    }
    MIXPL_DISPATCH(device, match_queries, view);
  }
  return targets;
}

namespace {

// Inputs: sizes, then logits and boxes of each layer, then boxes and labels of each image;
// { layers, classification, boxes, iou, alpha, gamma, eps, xyxyL1 }.
struct NamedInputs {
  std::vector<Tensor> logits, boxes;
  Tensor sizes;
  Truth truth;
  SetMatchingOptions options;

  NamedInputs(const char* op, const std::vector<Tensor>& in, const Options& o, int64_t layers) {
    const Check check(op);
    options.classification = static_cast<float>(o.number("classification", options.classification));
    options.boxes = static_cast<float>(o.number("boxes", options.boxes));
    options.iou = static_cast<float>(o.number("iou", options.iou));
    options.alpha = static_cast<float>(o.number("alpha", options.alpha));
    options.gamma = static_cast<float>(o.number("gamma", options.gamma));
    options.eps = static_cast<float>(o.number("eps", options.eps));
    options.xyxy_l1 = o.boolean("xyxyL1", options.xyxy_l1);
    check.in_range("layers", static_cast<double>(layers), 1, 1000);
    const size_t first = 1 + 2 * static_cast<size_t>(layers);
    if (in.size() < first || (in.size() - first) % 2 != 0)
      throw ShapeError(str(op, ": needs sizes, logits and boxes per layer (", layers,
                           "), then boxes and labels per image, got ", in.size(), " tensors"));
    sizes = in[0];
    for (size_t i = 1; i < first; i += 2) {
      logits.push_back(in[i]);
      boxes.push_back(in[i + 1]);
    }
    check.rank("logits", logits[0], 3, "N, Q, C");
    std::vector<Tensor> objects, labels;
    for (size_t i = first; i < in.size(); i += 2) {
      check.dtype("labels", in[i + 1], DType::i32);
      for (int32_t label : in[i + 1].to_vector<int32_t>())
        if (label < 0 || label >= logits[0].size(2))
          throw RangeError(
              str(op, ": labels must be in [0, ", logits[0].size(2) - 1, "], got ", label));
      objects.push_back(in[i]);
      labels.push_back(in[i + 1]);
    }
    truth = join_truth(op, objects, labels, logits[0].device());
  }
};

// Outputs: labels, boxes, weights, objects, positives of each layer.
const bool registered =
    register_op("matchQueries", [](const std::vector<Tensor>& in, const Options& o) {
      const NamedInputs args("matchQueries", in, o, o.integer("layers", 1));
      std::vector<Tensor> out;
      for (const QueryTargets& t :
           match_queries(args.logits, args.boxes, args.truth, args.sizes, args.options))
        out.insert(out.end(), {t.labels, t.boxes, t.weights, t.objects,
                               Tensor::full({}, static_cast<float>(t.positives), DType::f32)});
      return out;
    });
const bool costs_registered =
    register_op("queryCosts", [](const std::vector<Tensor>& in, const Options& o) {
      const NamedInputs args("queryCosts", in, o, 1);
      return std::vector<Tensor>{
          query_costs(args.logits[0], args.boxes[0], args.truth, args.sizes, args.options)};
    });

}  // namespace

}  // namespace mixpl
