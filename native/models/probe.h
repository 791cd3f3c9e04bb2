// What a pass of loss() shows of itself to an analysis: the pyramid, and the class scores with what
// they are to learn. Without a probe in the context, which is the rule, nothing is kept.
#pragma once

#include <vector>

#include "autograd/tape.h"
#include "core/tensor.h"

namespace mixpl {

/// What the class scores of a detector learn.
enum class ClassTargets : uint8_t {
  binary,   // sigmoids: 1 for the class of an anchor's or point's object, 0 for the others
  soft,     // sigmoids: any number in [0, 1], the quality of a box or a heat
  softmax,  // one class of C + 1
  matched,  // sigmoids, 0 and 1: one query for each object, whichever that is
};

/// The scores of one level of a dense head, or of all rows (regions, queries) of another one.
struct ShownScores {
  Tensor logits;   // f32|bf16, R rows of as many numbers each, image after image
  Tensor labels;   // i32, R: 0 … C-1 object, C background, -1 ignored; undefined: see pairs
  Tensor pairs{};  // i32 [P, 2]: row (-1: none) and class of what is to be found, instead of labels
  Tensor image{};  // i32 [R]: whose row it is; undefined: every image has equally many

  /// Numbers a row. Cells of several anchors hold their rows one after another.
  int64_t classes() const {
    if (!labels.defined() || labels.numel() == 0) return logits.size(logits.rank() - 1);
    return logits.numel() / labels.numel();
  }
};

struct Probe {
  /// Not null: the pass is recorded from the pyramid on, whose levels get a gradient; what is
  /// before them is not recorded.
  Tape* tape = nullptr;

  std::vector<Tensor> levels;  // f32|bf16 [N, H, W, C], as heads read them
  int first_level = 0;         // 3: they begin with P3
  std::vector<ShownScores> scores;
  ClassTargets targets = ClassTargets::binary;
  bool probabilities = false;  // scores are sigmoids, not their logits
};

/// For necks. Nothing without a probe.
void show_levels(const std::vector<Tensor>& levels, int first_level);
/// For heads that score rows of all images together; of several calls of a pass the last one
/// counts: a cascade's last stage. Nothing without a probe.
void show_scores(const ShownScores& scores, ClassTargets targets);
/// For dense heads, a tensor each a level. Nothing without a probe.
void show_scores(const std::vector<Tensor>& logits, const std::vector<Tensor>& labels,
                 ClassTargets targets, bool probabilities = false);
/// The same with pairs instead of labels.
void show_pairs(const std::vector<Tensor>& logits, const std::vector<Tensor>& pairs,
                ClassTargets targets);

}  // namespace mixpl
