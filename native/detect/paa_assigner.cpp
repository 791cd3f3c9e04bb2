#include "detect/paa_assigner.h"

#include "core/check.h"
#include "core/part.h"
#include "detect/box_iou.h"
#include "ops/registry.h"

namespace mixpl {

Tensor paa_costs(const std::vector<Tensor>& logits, const std::vector<Tensor>& deltas,
                 const Anchors& anchors, const Truth& truth, const Tensor& assigned,
                 int64_t classes, const PaaCostOptions& options) {
  const Check check("paaCosts");
  const Pyramid& pyramid = anchors.pyramid;
  check.dtype("assigned", assigned, DType::i32);
  check.shape("assigned", assigned, {truth.images(), pyramid.count()}, "one an anchor");
  for (int l = 0; l < pyramid.levels; ++l) {
    check.floating("logits", logits[l]);
    check.dtype("deltas", deltas[l], logits[0].dtype());
    check.dtype("logits", logits[l], logits[0].dtype());
    check.same_device("logits", logits[l], assigned);
    check.same_device("deltas", deltas[l], assigned);
    const int64_t rows = truth.images() * pyramid.size(l);
    if (logits[l].numel() != rows * classes || deltas[l].numel() != rows * 4)
      throw ShapeError(str("paaCosts: logits and deltas must hold ", classes, " and 4 numbers for ",
                           rows, " anchors, got ", logits[l].shape(), " and ", deltas[l].shape()));
  }
  Tensor costs = Tensor::empty(assigned.shape(), DType::f32, assigned.device());
  MIXPL_DISPATCH(costs.device(), fill_paa_costs, logits, deltas, anchors, truth, assigned, classes,
                 options, costs);
  return costs;
}

Tensor select_paa(const Pyramid& pyramid, const Truth& truth, const Tensor& assigned,
                  const Tensor& losses, int64_t top_k) {
  const Check check("selectPaa");
  check.dtype("assigned", assigned, DType::i32);
  check.shape("assigned", assigned, {truth.images(), pyramid.count()}, "one an anchor");
  check.dtype("losses", losses, DType::f32);
  check.shape("losses", losses, assigned.shape(), "one an anchor");
  check.same_device("losses", losses, assigned);
  Tensor kept = Tensor::empty_like(assigned);
  const PaaView view{pyramid,
                     TruthView(truth),
                     truth.images(),
                     top_k,
                     assigned.data<int32_t>(),
                     losses.data<float>(),
                     kept.data<int32_t>()};
  MIXPL_DISPATCH(kept.device(), select_paa, view, truth.total());
  return kept;
}

namespace {
// selectPaa: assigned i32 [A], losses f32 [A]; { levels: sizes, boxes, topK }; output i32 [A].
// paaCosts: logits, deltas of one level, anchors, boxes, labels, assigned i32 [A];
// { image, classes, boxWeight }; output f32 [A], 0 where there is no box.
const bool registered =
    register_op(
        "selectPaa",
        [](const std::vector<Tensor>& in, const Options& o) {
          if (in.size() != 2) throw ShapeError(str("selectPaa: needs 2 tensors, got ", in.size()));
          const Check check("selectPaa");
          const int64_t boxes = o.integer("boxes", 0), top_k = o.integer("topK", 9);
          check.in_range("boxes", static_cast<double>(boxes), 0, 1 << 24);
          check.in_range("topK", static_cast<double>(top_k), 1, 1 << 16);
          check.dtype("assigned", in[0], DType::i32);
          check.dtype("losses", in[1], DType::f32);
          std::vector<int64_t> sizes;
          int64_t count = 0;
          for (double size : o.numbers("levels", {})) {
            check.in_range("levels", size, 0, 1 << 24);
            count += sizes.emplace_back(static_cast<int64_t>(size));
          }
          check.shape("assigned", in[0], {count}, "one an anchor of the levels");
          check.shape("losses", in[1], {count}, "one an anchor of the levels");
          for (int32_t a : in[0].to_vector<int32_t>())
            check.in_range("assigned", a, kIgnored, static_cast<double>(boxes - 1));
          const Truth truth =
              join_unlabelled("selectPaa", Tensor::zeros({boxes, 4}, DType::f32, in[0].device()));
          return std::vector<Tensor>{select_paa(Pyramid(sizes), truth, in[0].alias({1, count}),
                                                in[1].alias({1, count}), top_k)
                                         .alias({count})};
        }) &&
    register_op("paaCosts", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() != 6) throw ShapeError(str("paaCosts: needs 6 tensors, got ", in.size()));
      const Check check("paaCosts");
      as_boxes("paaCosts", "anchors", in[2]);
      as_boxes("paaCosts", "boxes", in[3]);
      check.dtype("assigned", in[5], DType::i32);
      check.shape("assigned", in[5], {in[2].size(0)}, "one an anchor");
      for (int32_t a : in[5].to_vector<int32_t>())
        check.in_range("assigned", a, kIgnored, static_cast<double>(in[3].size(0) - 1));
      const int64_t image = o.integer("image", 0), classes = o.integer("classes", 1);
      check.in_range("image", static_cast<double>(image), 0, 1 << 16);
      check.in_range("classes", static_cast<double>(classes), 1, 1 << 16);
      // One image of the batch.
      const auto own = [&](const char* name, const Tensor& t, int64_t columns) {
        const int64_t each = in[2].size(0) * columns;
        check.floating(name, t);
        if (t.numel() < (image + 1) * each)
          throw ShapeError(str("paaCosts: ", name, " must hold ", columns, " numbers for ",
                               in[2].size(0), " anchors of image ", image, ", got ", t.shape()));
        return part_of(t, image * each * size_of(t.dtype()), {in[2].size(0), columns}, t.dtype());
      };
      PaaCostOptions options;
      options.coder.stds = {0.1f, 0.1f, 0.2f, 0.2f};
      options.box_weight = static_cast<float>(o.number("boxWeight", 1.3));
      const int64_t count = in[2].size(0);
      return std::vector<Tensor>{paa_costs({own("logits", in[0], classes)},
                                           {own("deltas", in[1], 4)},
                                           Anchors::join("paaCosts", {in[2]}),
                                           join_truth("paaCosts", {in[3]}, {in[4]}, in[0].device()),
                                           in[5].alias({1, count}), classes, options)
                                     .alias({count})};
    });
}  // namespace

}  // namespace mixpl
