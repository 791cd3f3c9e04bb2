// What every layer of a decoder says of its queries, and what it is to learn.
#pragma once

#include <string>
#include <vector>

#include "detect/set_matching.h"
#include "models/detector.h"
#include "nn/linear.h"
#include "ops/focal_loss/focal_loss.h"

namespace mixpl {

struct QueryHeadSpec {
  int64_t channels = 256, classes = 80;
  int layers = 6;       // predictions: one a decoder layer, and one more for an encoder's
  bool shared = false;  // all layers have the parameters of layer 0
  float size_bias = 0;  // initial bias of width and height in layer 0
};

/// Parameters: cls_branches.<i>.{weight, bias}, reg_branches.<i>.{0,2,4}.{weight, bias}. Shared
/// ones are there once, as branch 0.
class QueryHead {
 public:
  QueryHead() = default;
  QueryHead(const Scope& scope, const QueryHeadSpec& spec);

  /// [N, Q, C] -> [N, Q, K]
  Tensor logits(int layer, const Tensor& x) const { return classes_[at(layer)](x); }
  /// [N, Q, C] -> [N, Q, 4]: see refined_boxes
  Tensor deltas(int layer, const Tensor& x) const;

 private:
  struct Boxes {
    Linear hidden[2], out;
  };
  size_t at(int layer) const { return shared_ ? 0 : static_cast<size_t>(layer); }

  std::vector<Linear> classes_;
  std::vector<Boxes> boxes_;
  bool shared_ = false;
};

/// Predictions of one layer.
struct QueryOutputs {
  Tensor logits;  // [N, Q, K]
  Tensor boxes;   // f32 [N, Q, 4] (cx, cy, w, h) in shares of the image
};

struct QueryLossOptions {
  SetMatchingOptions matching;
  FocalLossOptions focal;
  float classification = 2, boxes = 5, iou = 2;  // weights of the losses

  /// "train": { focalAlpha, focalGamma, matchCosts: { classification, boxes, iou }, lossWeights:
  /// { classification, boxes, iou } }. @throws ConfigError
  static QueryLossOptions read(const Options& options, const QueryLossOptions& defaults);
};

/// Appends prefix + "loss_cls", "loss_bbox" and "loss_iou": focal loss of all queries, L1 of boxes
/// in shares of the image (of their corners, if matching.xyxy_l1) and GIoU of boxes in pixels of
/// those with an object, each over the number of queries with an object, at least 1.
/// @source mmdetection DETRHead.loss_by_feat_single
void add_query_losses(Losses& losses, const std::string& prefix, const QueryOutputs& out,
                      const QueryTargets& targets, const Tensor& sizes, int64_t classes,
                      const QueryLossOptions& options);

/// Losses of all layers of a decoder, each matched by itself: the last without a prefix, then the
/// others as "d0.", "d1." ...
/// @param prefix before the name, e.g. "dn_"; "d0.dn_loss_cls"
void add_layer_losses(Losses& losses, const std::string& prefix,
                      const std::vector<QueryOutputs>& layers,
                      const std::vector<QueryTargets>& targets, const Tensor& sizes,
                      int64_t classes, const QueryLossOptions& options);

/// The same names, all 0: of queries that a batch without objects has none of.
void add_no_losses(Losses& losses, const std::string& prefix, size_t layers);

/// Of several layers in one go.
std::vector<QueryTargets> match_layers(const std::vector<QueryOutputs>& layers, const Truth& truth,
                                       const Tensor& sizes, const QueryLossOptions& options);

}  // namespace mixpl
