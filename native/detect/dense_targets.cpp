#include "detect/dense_targets.h"

#include "detect/normalisers.h"
#include "ops/registry.h"

namespace mixpl {

DenseTargets assign_dense_targets(const Anchors& anchors, const Truth& truth, const Tensor& valid,
                                  int64_t classes, const DeltaCoder* coder,
                                  const MaxIouOptions& options) {
  const Tensor assigned = assign_max_iou(anchors.all, truth, valid, options);
  const int64_t images = truth.images();
  const Device device = anchors.all.device();
  DenseTargets out{per_level(anchors.pyramid, images, DType::i32, device),
                   per_level(anchors.pyramid, images, DType::f32, device, {4}),
                   per_level(anchors.pyramid, images, DType::f32, device),
                   count_positives(assigned)};
  const DenseTargetView view{anchors.pyramid,
                             reinterpret_cast<const Box*>(anchors.all.data<float>()),
                             assigned.data<int32_t>(),
                             TruthView(truth),
                             coder ? *coder : DeltaCoder{},
                             coder != nullptr,
                             static_cast<int32_t>(classes),
                             pointers<int32_t>(out.labels),
                             pointers<Delta, float>(out.boxes),
                             pointers<float>(out.weights)};
  MIXPL_DISPATCH(device, fill_dense_targets, images, view);
  return out;
}

Tensor weigh_images(DenseTargets& targets) {
  Tensor factors = Tensor::empty_like(targets.positives);
  MIXPL_DISPATCH(factors.device(), weigh_images, targets.positives, targets.weights, factors);
  return factors;
}

namespace {
// Inputs: anchors of one level, then boxes and labels of each image; { classes, posIou, negIou,
// minPosIou }. Outputs: labels, deltas, weights.
const bool registered =
    register_op("denseTargets", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.empty() || in.size() % 2 == 0)
        throw ShapeError(str("denseTargets: needs anchors, then boxes and labels per image, got ",
                             in.size(), " tensors"));
      MaxIouOptions options;
      options.pos_iou = static_cast<float>(o.number("posIou", options.pos_iou));
      options.neg_iou = static_cast<float>(o.number("negIou", options.neg_iou));
      options.min_pos_iou = static_cast<float>(o.number("minPosIou", options.min_pos_iou));
      options.validate();
      std::vector<Tensor> boxes, labels;
      for (size_t i = 1; i < in.size(); i += 2) {
        boxes.push_back(in[i]);
        labels.push_back(in[i + 1]);
      }
      const Truth truth = join_truth("denseTargets", boxes, labels, in[0].device());
      const DeltaCoder coder;
      const DenseTargets targets =
          assign_dense_targets(Anchors::join("denseTargets", {in[0]}), truth, {},
                               o.integer("classes", 1), &coder, options);
      return std::vector<Tensor>{targets.labels[0], targets.boxes[0], targets.weights[0]};
    });
}  // namespace

}  // namespace mixpl
