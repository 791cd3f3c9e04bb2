#include "detect/paa_assigner.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "core/check.h"
#include "core/parallel.h"
#include "detect/box_iou.h"
#include "detect/max_iou_assigner.h"
#include "ops/focal_loss/focal_loss_math.h"
#include "ops/iou_loss/iou_loss_math.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

// Two Gaussians on a line.
struct Mixture {
  std::array<double, 2> weight{0.5, 0.5}, mean, precision{1, 1};

  // ln(weight_k N(x; k))
  double log_part(double x, int k) const {
    constexpr double kLogTwoPi = 1.8378770664093454836;
    const double d = x - mean[k];
    return std::log(weight[k]) - 0.5 * (kLogTwoPi + d * d * precision[k] - std::log(precision[k]));
  }
  double log_density(double x) const {
    const double a = log_part(x, 0), b = log_part(x, 1), most = std::max(a, b);
    return most + std::log(std::exp(a - most) + std::exp(b - most));
  }
};

Mixture fit_mixture(const std::vector<double>& x) {
  constexpr int kRounds = 100;
  constexpr double kTolerance = 1e-3, kLeastVariance = 1e-6;  // scikit-learn's
  const double n = static_cast<double>(x.size());
  Mixture m;
  m.mean = {x.front(), x.back()};
  double before = -std::numeric_limits<double>::infinity();
  std::vector<double> first(x.size());  // share of component 0
  for (int round = 0; round < kRounds; ++round) {
    double likelihood = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double density = m.log_density(x[i]);
      first[i] = std::exp(m.log_part(x[i], 0) - density);
      likelihood += density;
    }
    likelihood /= n;
    for (int k = 0; k < 2; ++k) {
      const auto share = [&](size_t i) { return k == 0 ? first[i] : 1 - first[i]; };
      double mass = 10 * std::numeric_limits<double>::epsilon(), sum = 0, squares = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        mass += share(i);
        sum += share(i) * x[i];
      }
      m.mean[k] = sum / mass;
      for (size_t i = 0; i < x.size(); ++i)
        squares += share(i) * (x[i] - m.mean[k]) * (x[i] - m.mean[k]);
      m.weight[k] = mass / n;
      m.precision[k] = 1 / (squares / mass + kLeastVariance);
    }
    if (std::fabs(likelihood - before) < kTolerance) break;
    before = likelihood;
  }
  return m;
}

struct Candidate {
  float loss;
  int32_t anchor;
  bool operator<(const Candidate& o) const {
    return loss != o.loss ? loss < o.loss : anchor < o.anchor;
  }
};

}  // namespace

void paa_costs(const Tensor& logits, const Tensor& deltas, int64_t image, const Tensor& anchors,
               const Tensor& boxes, const Tensor& labels, int64_t classes, const int32_t* assigned,
               const DeltaCoder& coder, const FocalLossOptions& focal, float box_weight,
               float* costs) {
  const Check check("paaCosts");
  const Box* anchor = as_boxes("paaCosts", "anchors", anchors);
  const Box* box = as_boxes("paaCosts", "boxes", boxes);
  check.dtype("labels", labels, DType::i32);
  check.shape("labels", labels, {boxes.size(0)}, "one a box");
  check.floating("logits", logits);
  check.dtype("deltas", deltas, logits.dtype());
  const int64_t count = anchors.size(0);
  if (logits.numel() < (image + 1) * count * classes || deltas.numel() < (image + 1) * count * 4)
    throw ShapeError(str("paaCosts: logits and deltas must hold ", classes, " and 4 numbers for ",
                         count, " anchors of image ", image, ", got ", logits.shape(), " and ",
                         deltas.shape()));
  const int32_t* label = labels.data<int32_t>();
  dispatch_floating(logits.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* x = logits.data<T>() + image * count * classes;
    const T* d = deltas.data<T>() + image * count * 4;
    parallel_for(count, int64_t{256}, [&](int64_t i) {
      const int32_t a = assigned[i];
      if (a < 0) return;
      double loss = 0;
      for (int64_t c = 0; c < classes; ++c) {
        const float logit = float(x[i * classes + c]);
        const bool own = label[a] == c;
        loss += (own ? focal.alpha : 1 - focal.alpha) *
                focal_term<-1>(own ? logit : -logit, focal.gamma).loss;
      }
      const Box found = coder.decode(anchor[i], {float(d[4 * i]), float(d[4 * i + 1]),
                                                 float(d[4 * i + 2]), float(d[4 * i + 3])});
      const float pred[4] = {found.x1, found.y1, found.x2, found.y2};
      const float want[4] = {box[a].x1, box[a].y1, box[a].x2, box[a].y2};
      loss += box_weight * iou_term(pred, want, IouKind::giou, IouLossOptions{}.eps).loss;
      costs[i] = static_cast<float>(loss);
    });
  });
}

std::vector<int32_t> better_part(const std::vector<double>& losses) {
  const Mixture mixture = fit_mixture(losses);
  std::vector<int32_t> first;
  size_t densest = 0;
  double most = -std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < losses.size(); ++i) {
    if (mixture.log_part(losses[i], 0) < mixture.log_part(losses[i], 1)) continue;
    const double density = mixture.log_density(losses[i]);
    first.push_back(static_cast<int32_t>(i));
    if (density > most) {
      most = density;
      densest = first.size();
    }
  }
  first.resize(densest);
  return first;
}

std::vector<int32_t> select_paa(const std::vector<int64_t>& level_sizes,
                                const std::vector<int32_t>& assigned,
                                const std::vector<float>& losses, int64_t boxes, int64_t top_k) {
  // The anchors of each box, level by level.
  const size_t levels = level_sizes.size();
  std::vector<std::vector<Candidate>> of(boxes * levels);
  int64_t at = 0;
  for (size_t l = 0; l < levels; ++l)
    for (int64_t i = 0; i < level_sizes[l]; ++i, ++at)
      if (assigned[at] >= 0 && std::isfinite(losses[at]))
        of[assigned[at] * levels + l].push_back({losses[at], static_cast<int32_t>(at)});

  std::vector<std::vector<int32_t>> kept(boxes);
  parallel_for(boxes, int64_t{1}, [&](int64_t g) {
    std::vector<Candidate> candidates;
    for (size_t l = 0; l < levels; ++l) {
      std::vector<Candidate>& own = of[g * levels + l];
      const size_t most = std::min(own.size(), static_cast<size_t>(top_k));
      std::partial_sort(own.begin(), own.begin() + most, own.end());
      candidates.insert(candidates.end(), own.begin(), own.begin() + most);
    }
    if (candidates.size() < 2) return;
    std::sort(candidates.begin(), candidates.end());
    std::vector<double> values;
    for (const Candidate& c : candidates) values.push_back(c.loss);
    for (int32_t i : better_part(values)) kept[g].push_back(candidates[i].anchor);
  });

  std::vector<int32_t> out = assigned;
  for (int32_t& a : out)
    if (a >= 0) a = kNegative;
  for (int64_t g = 0; g < boxes; ++g)
    for (int32_t anchor : kept[g]) out[anchor] = static_cast<int32_t>(g);
  return out;
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
          const std::vector<int32_t> assigned = in[0].to_vector<int32_t>();
          for (int32_t a : assigned) check.in_range("assigned", a, kIgnored, boxes - 1);
          return std::vector<Tensor>{Tensor::from(
              select_paa(sizes, assigned, in[1].to_vector<float>(), boxes, top_k), {count})};
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
      Tensor costs = Tensor::zeros({in[2].size(0)}, DType::f32);
      DeltaCoder coder;
      coder.stds = {0.1f, 0.1f, 0.2f, 0.2f};
      paa_costs(in[0], in[1], image, in[2], in[3], in[4], classes, in[5].data<int32_t>(), coder, {},
                static_cast<float>(o.number("boxWeight", 1.3)), costs.data<float>());
      return std::vector<Tensor>{costs};
    });
}  // namespace

}  // namespace mixpl
