#include "models/probe.h"

#include "core/context.h"

namespace mixpl {

void show_levels(const std::vector<Tensor>& levels, int first_level) {
  Context& context = Context::current();
  Probe* const probe = context.probe;
  if (!probe) return;
  probe->levels = levels;
  probe->first_level = first_level;
  if (!probe->tape) return;
  for (Tensor& level : probe->levels) level.set_requires_grad(true);
  context.tape = probe->tape;
}

void show_scores(const ShownScores& scores, ClassTargets targets) {
  Probe* const probe = Context::current().probe;
  if (!probe) return;
  probe->scores = {scores};
  probe->targets = targets;
}

void show_scores(const std::vector<Tensor>& logits, const std::vector<Tensor>& labels,
                 ClassTargets targets, bool probabilities) {
  Probe* const probe = Context::current().probe;
  if (!probe) return;
  probe->scores.clear();
  for (size_t l = 0; l < logits.size(); ++l) probe->scores.push_back({logits[l], labels[l]});
  probe->targets = targets;
  probe->probabilities = probabilities;
}

void show_pairs(const std::vector<Tensor>& logits, const std::vector<Tensor>& pairs,
                ClassTargets targets) {
  Probe* const probe = Context::current().probe;
  if (!probe) return;
  probe->scores.clear();
  for (size_t l = 0; l < logits.size(); ++l) probe->scores.push_back({logits[l], {}, pairs[l]});
  probe->targets = targets;
}

}  // namespace mixpl
