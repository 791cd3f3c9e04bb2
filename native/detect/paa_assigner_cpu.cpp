#include <algorithm>
#include <vector>

#include "detect/for_each_place.h"
#include "detect/paa_assigner.h"
#include "detect/paa_math.h"

namespace mixpl {
namespace {

Mixture fit_mixture(const std::vector<double>& x) {
  const int64_t n = static_cast<int64_t>(x.size());
  Mixture m(x.front(), x.back());
  double before = -std::numeric_limits<double>::infinity();
  std::vector<double> first(n);
  for (int round = 0; round < kMixtureRounds; ++round) {
    double likelihood = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double density = m.log_density(x[i]);
      first[i] = m.first_share(x[i], density);
      likelihood += density;
    }
    likelihood /= static_cast<double>(n);
    for (int k = 0; k < 2; ++k) m.fit(k, x.data(), first.data(), n);
    if (std::fabs(likelihood - before) < kMixtureTolerance) break;
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

std::vector<int32_t> better_part(const std::vector<double>& losses) {
  const Mixture mixture = fit_mixture(losses);
  std::vector<int32_t> first;
  size_t densest = 0;
  double most = -std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < losses.size(); ++i) {
    if (!mixture.is_first(losses[i])) continue;
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

namespace cpu {

void fill_paa_costs(const std::vector<Tensor>& logits, const std::vector<Tensor>& deltas,
                    const Anchors& anchors, const Truth& truth, const Tensor& assigned,
                    int64_t classes, const PaaCostOptions& options, Tensor& costs) {
  if (logits.empty()) return;
  dispatch_floating(logits[0].dtype(), [&](auto tag) {
    using T = decltype(tag);
    const PaaCostView<T> view{anchors.pyramid,
                              pointers<const T, T>(logits),
                              pointers<const T, T>(deltas),
                              reinterpret_cast<const Box*>(anchors.all.data<float>()),
                              TruthView(truth),
                              assigned.data<int32_t>(),
                              classes,
                              options,
                              costs.data<float>()};
    for_each_place(view.pyramid, truth.images(), view);
  });
}

void select_paa(const PaaView& view, int64_t boxes) {
  // The anchors of each box, level by level.
  const int levels = view.pyramid.levels;
  const int64_t count = view.pyramid.count();
  std::vector<std::vector<Candidate>> of(boxes * levels);
  for (int64_t n = 0; n < view.images; ++n)
    for (int l = 0; l < levels; ++l)
      for (int64_t i = view.pyramid.first[l]; i < view.pyramid.first[l + 1]; ++i) {
        const int32_t own = view.assigned[n * count + i];
        view.kept[n * count + i] = own >= 0 ? kNegative : own;
        if (own >= 0 && view.is_candidate(n, i, own))
          of[(view.truth.begin(n) + own) * levels + l].push_back(
              {view.losses[n * count + i], static_cast<int32_t>(i)});
      }

  parallel_for(boxes, int64_t{1}, [&](int64_t g) {
    std::vector<Candidate> candidates;
    for (int l = 0; l < levels; ++l) {
      std::vector<Candidate>& own = of[g * levels + l];
      const size_t most = std::min(own.size(), static_cast<size_t>(view.top_k));
      std::partial_sort(own.begin(), own.begin() + most, own.end());
      candidates.insert(candidates.end(), own.begin(), own.begin() + most);
    }
    if (candidates.size() < 2) return;
    std::sort(candidates.begin(), candidates.end());
    std::vector<double> values;
    for (const Candidate& c : candidates) values.push_back(c.loss);
    const int64_t image = view.truth.image_of(static_cast<int32_t>(g), view.images);
    for (int32_t i : better_part(values))
      view.kept[image * count + candidates[i].anchor] =
          static_cast<int32_t>(g) - view.truth.begin(image);
  });
}

}  // namespace cpu

}  // namespace mixpl
