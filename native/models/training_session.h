// A detector with what training it needs: tape, gradients, optimizer state. One owner thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "autograd/tape.h"
#include "models/detector.h"
#include "optim/ema.h"
#include "optim/refresh_filters.h"

namespace mixpl {

class Collective;
class Optimizer;

enum class BufferPolicy : uint8_t { skip, copy, average };

/// What a detector computes in; master weights and sums are f32.
struct ComputeType {
  DType activations = DType::f32;
  bool tf32 = false;  // f32 products on a GPU's tensor cores, factors of 11 bits; the CPU has none
};

class TrainingSession {
 public:
  /// @param json of the detector, see create_detector
  TrainingSession(const std::string& json, Device device, ComputeType compute, uint64_t seed);
  ~TrainingSession();

  /// The losses of a pass by name.
  using LossValues = std::vector<std::pair<std::string, float>>;

  /// Forward pass that keeps its graph for backward(); replaces a graph that was not used.
  LossValues loss(const ImageBatch& images, const std::vector<Target>& targets);
  /// The same without waiting for the values: step() reads them with the norm, or read_losses().
  void forward(const ImageBatch& images, const std::vector<Target>& targets) {
    forward({{images, targets}});
  }
  /// A pass for each batch, all in one graph: see Detector::losses.
  void forward(const std::vector<LabelledBatch>& batches);
  /// Values of every forward() of the step under way that was not discarded, in order, or, before
  /// its first forward(), of the step just made, failed or not. Each is given once, and no more
  /// than the last kMostPasses of a step. Waits for a GPU, unless step() has done so.
  std::vector<LossValues> read_losses();
  static constexpr size_t kMostPasses = 256;
  static constexpr size_t kMostTogether = 8;  // batches of a forward()
  /// Adds weight * gradient of the last pass to the parameters' gradients and frees the graph.
  /// @throws StateError without a preceding loss() or forward(); what fails midway (memory, the
  /// device) leaves no gradients at all
  void backward(float weight) { backward(std::vector{weight}); }
  /// @param weights one for each pass of the last forward(). @throws ShapeError, as above
  void backward(const std::vector<float>& weights);
  /// Frees the graph of the last passes, if it was not used, and forgets their losses.
  void discard();
  std::vector<Detections> predict(const ImageBatch& images);
  /// The same without waiting for the boxes: read_predictions() has them. A GPU does it beside what
  /// other sessions give it meanwhile (core/side_work.h); every call of this one but discard() and
  /// gradient() comes behind it.
  void predict_later(const ImageBatch& images);
  /// Boxes of every predict_later() so far, in order, each once and no more than the last
  /// kMostPasses. Waits for a GPU's predictions, not for what it was given after them.
  std::vector<std::vector<Detections>> read_predictions();

  /// Replaces the optimizer; its state starts at zero. @throws ConfigError
  void configure_optimizer(const std::string& json);
  /// Clips, updates, clears the gradients. Returns the gradient norm before clipping. A GPU is
  /// waited for once, for the norm and the losses of forward() together.
  /// @throws DivergedError when one of them is not finite; then nothing was changed but the
  /// gradients, which are cleared
  double step(double lr);
  /// student.step(lr), and ema(student, momentum, buffers) if it was taken: a GPU is given both
  /// before it is waited for. @throws as both do; what ema() refuses before anything was changed
  double step_student(TrainingSession& student, double lr, double momentum, BufferPolicy buffers);
  /// For processes that have parts of an iteration each: what passes draw from here on follows from
  /// the number of the part, in [0, 2^31), whoever has it. @throws RangeError
  void start_part(int64_t part);
  /// For each of parameters(), whether the parts since the last sum gave a weight a gradient, or
  /// changed a buffer.
  std::vector<uint8_t> reached();
  /// Gradients become sums over the processes, buffers their means; only those that any of them
  /// reached, which all of them know. @param reached as reached(). @throws ShapeError, StateError
  void sum_gradients(Collective& collective, int processes, const std::vector<uint8_t>& reached);
  /// Forgets the gradients, and the losses that they are of.
  void zero_gradients();

  /// this = (1 - momentum) this + momentum student, over all parameters; buffers by policy.
  void ema(TrainingSession& student, double momentum, BufferPolicy buffers);

  /// Parameters, buffers and ("optimizer." + ...) state by name. @throws RangeError unknown name
  Tensor find(const std::string& name);
  /// Copies `values` in. @throws ShapeError when the count differs
  void write(const std::string& name, const std::vector<float>& values);
  /// Gathered since the last step; undefined when nothing reached it. @throws RangeError
  Tensor gradient(const std::string& name);
  /// Names of what training keeps besides weights, "optimizer." + ...; find() and write() take
  /// them.
  std::vector<std::string> optimizer_state();

  /// look(detector) in the context of an analysis (models/analysis): as in evaluation (statistics
  /// of BatchNorm as they are, no dropout), without a tape, with the random numbers of a first
  /// pass. Nothing of the session may change by it.
  template <class Look>
  auto analyse(Look&& look) {
    join_predictions();
    const ContextScope scope(analysis_context());
    return look(*detector_);
  }

  Detector& detector() { return *detector_; }
  Device device() const { return device_; }

 private:
  Context analysis_context() const;
  void pass(const std::vector<LabelledBatch>& batches);
  double step(double lr, const std::function<void(const Tensor& clip)>& follow);
  /// What the device is given from now on is behind the predictions: they read the weights, and
  /// what was derived from them.
  void join_predictions();
  void pair_with(TrainingSession& student, BufferPolicy buffers);
  /// The weights changed.
  void refresh_filters();
  static std::vector<Tensor> scalars_of(const std::vector<Losses>& passes);
  static std::vector<LossValues> named(const std::vector<Losses>& passes,
                                       const std::vector<float>& numbers);

  std::unique_ptr<Detector> detector_;
  Device device_;
  ComputeType compute_;
  Tape tape_;
  Tensor iterations_;  // f32 [1], on the host as every count is: calls of step() so far
  uint64_t seed_;
  Tensor passes_;  // f32 [1]: calls of loss() so far; the random numbers of the next follow from it
  uint64_t part_ = 0;                      // of start_part(), and then passes_ are of the part
  std::vector<uint64_t> versions_before_;  // of all parameters, at the first part since a sum
  std::vector<Losses> losses_;             // of the passes in the graph
  bool has_graph_ = false;
  size_t of_graph_ = 0;           // so many passes of the graph are the last of unread_
  std::vector<Losses> unread_;    // of forward(), since the last step
  std::vector<LossValues> read_;  // by step()
  std::unique_ptr<Optimizer> optimizer_;
  std::vector<PendingDetections> predictions_;  // of predict_later()
  bool predicts_beside_ = false;                // since the last join
  EmaPairs averaged_, copied_;                  // with the last student
  FilterTables filters_;
};

}  // namespace mixpl
