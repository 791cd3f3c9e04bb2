#include "models/training_session.h"

#include <cmath>
#include <utility>

#include "core/check.h"
#include "core/launch.h"
#include "core/part.h"
#include "core/side_work.h"
#include "core/tensor_values.h"
#include "distributed/collective.h"
#include "optim/optimizer.h"
#include "optim/parameter_groups.h"

namespace mixpl {
namespace {

constexpr const char* kIterations = "optimizer.iterations";
constexpr const char* kPasses = "optimizer.passes";
constexpr int64_t kMostParts = int64_t{1} << 31;
// The count of passes begins anew here: f32 counts no further one by one.
constexpr uint64_t kMostCounted = uint64_t{1} << 24;

// Numbers of a tensor in a block of several, each of which begins where kernels read 16 bytes.
int64_t room_of(const Tensor& t) { return (t.numel() + 3) / 4 * 4; }

// What a model creates while it is built lies on this device.
std::unique_ptr<Detector> create_on(Device device, const std::string& json, uint64_t seed) {
  Context context;
  context.device = device;
  ContextScope scope(context);
  return create_detector(json, seed);
}

Context make_context(Device device, ComputeType compute, bool training, Tape* tape) {
  Context context;
  context.device = device;
  context.compute = compute.activations;
  context.allow_tf32 = compute.tf32;
  context.training = training;
  context.tape = tape;
  return context;
}

}  // namespace

TrainingSession::TrainingSession(const std::string& json, Device device, ComputeType compute,
                                 uint64_t seed)
    : detector_(create_on(device, json, seed)),
      device_(device),
      compute_(compute),
      iterations_(Tensor::full({1}, 0, DType::f32)),
      seed_(seed),
      passes_(Tensor::full({1}, 0, DType::f32)) {}

TrainingSession::~TrainingSession() = default;

void TrainingSession::pass(const std::vector<LabelledBatch>& batches) {
  join_predictions();
  discard();
  Context context = make_context(device_, compute_, true, &tape_);
  context.iteration = static_cast<int64_t>(*iterations_.data<float>());
  float& passes = *passes_.data<float>();
  const auto before = static_cast<uint64_t>(passes);
  context.random = {seed_, (part_ * kMostPasses + before) * kPassStreams};
  passes = static_cast<float>((before + batches.size()) % kMostCounted);
  ContextScope scope(context);
  try {
    losses_ = detector_->losses(batches);
  } catch (...) {
    discard();
    throw;
  }
  has_graph_ = true;
}

TrainingSession::LossValues TrainingSession::loss(const ImageBatch& images,
                                                  const std::vector<Target>& targets) {
  pass({{images, targets}});
  return named(losses_, read_scalars(scalars_of(losses_)))[0];
}

void TrainingSession::forward(const std::vector<LabelledBatch>& batches) {
  if (batches.empty()) throw ShapeError("detector.forward: needs a batch at least, got none");
  if (batches.size() > kMostTogether)
    throw ShapeError(
        str("detector.forward: takes at most ", kMostTogether, " batches, got ", batches.size()));
  pass(batches);
  read_.clear();
  for (const Losses& losses : losses_) {
    // Who goes back for ever without a step must not fill the memory with losses.
    if (unread_.size() == kMostPasses) unread_.erase(unread_.begin());
    unread_.emplace_back();
    for (const auto& [name, value] : losses) unread_.back().emplace_back(name, value.detach());
  }
  of_graph_ = losses_.size();
}

std::vector<TrainingSession::LossValues> TrainingSession::read_losses() {
  if (unread_.empty()) return std::exchange(read_, {});
  of_graph_ = 0;
  const std::vector<Losses> passes = std::exchange(unread_, {});
  return named(passes, read_scalars(scalars_of(passes)));
}

std::vector<Tensor> TrainingSession::scalars_of(const std::vector<Losses>& passes) {
  std::vector<Tensor> scalars;
  for (const Losses& losses : passes)
    for (const auto& [name, value] : losses) scalars.push_back(value);
  return scalars;
}

std::vector<TrainingSession::LossValues> TrainingSession::named(const std::vector<Losses>& passes,
                                                                const std::vector<float>& numbers) {
  std::vector<LossValues> values(passes.size());
  auto number = numbers.begin();
  for (size_t i = 0; i < passes.size(); ++i)
    for (const auto& [name, value] : passes[i]) values[i].emplace_back(name, *number++);
  return values;
}

void TrainingSession::backward(const std::vector<float>& weights) {
  if (!has_graph_) throw StateError("detector.backward: call loss() first; its graph is used up");
  if (weights.size() != losses_.size())
    throw ShapeError(str("detector.backward: weights must be one for each pass (", losses_.size(),
                         "), got ", weights.size()));
  join_predictions();
  std::vector<Tensor> roots, seeds;
  for (size_t i = 0; i < losses_.size(); ++i) {
    // One for all of a pass: it is only read.
    const Tensor seed = Tensor::full({}, weights[i], DType::f32, device_);
    for (const auto& [name, value] : losses_[i]) roots.push_back(value), seeds.push_back(seed);
  }
  losses_.clear();
  has_graph_ = false;
  of_graph_ = 0;
  ContextScope scope(make_context(device_, compute_, true, nullptr));
  try {
    tape_.backward(roots, std::move(seeds));
  } catch (...) {
    zero_gradients();  // half of a gradient is none
    throw;
  }
}

void TrainingSession::discard() {
  unread_.resize(unread_.size() - of_graph_);
  tape_.clear();
  losses_.clear();
  has_graph_ = false;
  of_graph_ = 0;
}

std::vector<Detections> TrainingSession::predict(const ImageBatch& images) {
  join_predictions();
  ContextScope scope(make_context(device_, compute_, false, nullptr));
  return detector_->predict(images).get();
}

void TrainingSession::predict_later(const ImageBatch& images) {
  predicts_beside_ = true;
  const SideWork beside(device_);
  ContextScope scope(make_context(device_, compute_, false, nullptr));
  predictions_.push_back(detector_->predict(images));
  if (predictions_.size() > kMostPasses) predictions_.erase(predictions_.begin());
}

std::vector<std::vector<Detections>> TrainingSession::read_predictions() {
  std::vector<std::vector<Detections>> all;
  for (PendingDetections& pending : std::exchange(predictions_, {})) all.push_back(pending.get());
  join_predictions();
  return all;
}

Context TrainingSession::analysis_context() const {
  Context context = make_context(device_, compute_, false, nullptr);
  context.iteration = static_cast<int64_t>(*iterations_.data<float>());
  context.random = {seed_, 0};
  return context;
}

void TrainingSession::join_predictions() {
  if (predicts_beside_) join_side_work(device_);
  predicts_beside_ = false;
}

void TrainingSession::configure_optimizer(const std::string& json) {
  const Options all(json, "optimizer");
  const ParameterGroups groups(all);
  std::vector<std::string> paths;
  std::vector<OptimizerTarget> targets;
  for (const Parameter& p : detector_->parameters().all()) {
    if (p.kind == ParameterKind::weight) paths.push_back(p.name);
    if (p.trainable) targets.push_back(groups.target(p.name, p.value, p.norm));
  }
  // A group for what is frozen is no mistake: how much of it is frozen is another option.
  groups.check_matches(paths);
  optimizer_ = create_optimizer(all, std::move(targets));
}

double TrainingSession::step(double lr) { return step(lr, {}); }

double TrainingSession::step(double lr, const std::function<void(const Tensor& clip)>& follow) {
  join_predictions();
  if (!optimizer_) throw StateError("detector.step: the detector has no optimizer");
  if (!(lr >= 0) || !std::isfinite(lr))
    throw RangeError(str("detector.step: lr must be a number >= 0, got ", lr));
  const StepReport report = optimizer_->step(lr, scalars_of(unread_), follow);
  const std::vector<LossValues> losses = named(unread_, report.losses);
  zero_gradients();
  read_ = losses;
  const auto refuse = [](const std::string& what, double value) {
    throw DivergedError(str("detector.step: ", what, " must be finite, got ", value,
                            "; the weights were left as they were; try a lower learning rate or a "
                            "longer warm-up"));
  };
  for (const LossValues& pass : losses)
    for (const auto& [name, value] : pass)
      if (!std::isfinite(value)) refuse(name, value);
  if (!report.taken) refuse("the gradient's norm", report.norm);
  *iterations_.data<float>() += 1;
  refresh_filters();
  return report.norm;
}

void TrainingSession::refresh_filters() {
  std::vector<Tensor> weights;
  for (const Parameter& p : detector_->parameters().all())
    if (p.kind == ParameterKind::weight) weights.push_back(p.value);
  MIXPL_DISPATCH(device_, refresh_filters, weights, detector_->parameters().folds(), filters_);
}

void TrainingSession::zero_gradients() {
  for (Parameter& p : detector_->parameters().all()) p.value.set_grad(Tensor());
  of_graph_ = 0;
  unread_.clear();
  read_.clear();
}

void TrainingSession::start_part(int64_t part) {
  if (part < 0 || part >= kMostParts)
    throw RangeError(str("detector.startPart: part must be in [0, ", kMostParts, "), got ", part));
  part_ = static_cast<uint64_t>(part);
  *passes_.data<float>() = 0;
  if (!versions_before_.empty()) return;
  for (const Parameter& p : detector_->parameters().all())
    versions_before_.push_back(p.value.impl()->version);
}

std::vector<uint8_t> TrainingSession::reached() {
  std::vector<uint8_t> reached;
  for (const Parameter& p : detector_->parameters().all()) {
    const size_t i = reached.size();
    const bool changed =
        i < versions_before_.size() && p.value.impl()->version != versions_before_[i];
    reached.push_back(p.kind == ParameterKind::buffer ? changed : p.value.grad().defined());
  }
  return reached;
}

void TrainingSession::sum_gradients(Collective& collective, int processes,
                                    const std::vector<uint8_t>& reached) {
  join_predictions();
  auto& all = detector_->parameters().all();
  if (reached.size() != all.size())
    throw ShapeError(str("detector.sumGradients: reached must have ", all.size(), " entries, got ",
                         reached.size()));
  int64_t numel = 0;
  for (size_t i = 0; i < all.size(); ++i)
    if (reached[i]) numel += room_of(all[i].value);
  // One block, so that there is one sum, whose values go in and out in a launch each.
  Tensor block = Tensor::zeros({numel}, DType::f32, device_);
  std::vector<Tensor> sums, gradients, means, buffers;
  int64_t at = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    if (!reached[i]) continue;
    Parameter& p = all[i];
    const Tensor part =
        part_of(block, at * static_cast<int64_t>(sizeof(float)), p.value.shape(), DType::f32);
    at += room_of(p.value);
    if (p.kind == ParameterKind::buffer) {
      means.push_back(part), buffers.push_back(p.value);
      continue;
    }
    // Another process's part reached it, none of this one's: 0 here.
    if (!p.value.grad().defined())
      p.value.set_grad(Tensor::zeros(p.value.shape(), DType::f32, device_));
    sums.push_back(part), gradients.push_back(p.value.grad());
  }
  const auto blend = [](const std::vector<Tensor>& to, const std::vector<Tensor>& from,
                        double share) {
    EmaPairs pairs;
    pairs.assign(to, from);
    pairs.update(share);
  };
  blend(sums, gradients, 1);
  blend(means, buffers, 1.0 / processes);
  collective.sum(block);
  blend(gradients, sums, 1);
  blend(buffers, means, 1);
  versions_before_.clear();
}

double TrainingSession::step_student(TrainingSession& student, double lr, double momentum,
                                     BufferPolicy buffers) {
  Check("ema").in_range("momentum", momentum, 0, 1);
  pair_with(student, buffers);
  return student.step(lr, [&](const Tensor& clip) {
    averaged_.update(momentum, clip);
    copied_.update(1, clip);
    refresh_filters();
  });
}

void TrainingSession::ema(TrainingSession& student, double momentum, BufferPolicy buffers) {
  pair_with(student, buffers);
  averaged_.update(momentum);
  copied_.update(1);
  refresh_filters();
}

void TrainingSession::pair_with(TrainingSession& student, BufferPolicy buffers) {
  join_predictions();
  auto& own = detector_->parameters().all();
  const auto& other = student.detector_->parameters().all();
  if (own.size() != other.size())
    throw ShapeError("detector.ema: teacher and student must be the same kind of detector");
  std::vector<Tensor> to, from, copy_to, copy_from;
  for (size_t i = 0; i < own.size(); ++i) {
    if (own[i].name != other[i].name)
      throw ShapeError(str("detector.ema: teacher has '", own[i].name, "' where the student has '",
                           other[i].name, "'"));
    const bool buffer = own[i].kind == ParameterKind::buffer;
    if (buffer && buffers == BufferPolicy::skip) continue;
    const bool copy = buffer && buffers == BufferPolicy::copy;
    (copy ? copy_to : to).push_back(own[i].value);
    (copy ? copy_from : from).push_back(other[i].value);
  }
  averaged_.assign(std::move(to), from);
  copied_.assign(std::move(copy_to), copy_from);
}

Tensor TrainingSession::find(const std::string& name) {
  join_predictions();
  if (Parameter* p = detector_->parameters().find(name)) return p->value;
  if (name == kIterations) return iterations_;
  if (name == kPasses) return passes_;
  if (optimizer_)
    for (auto& [own, tensor] : optimizer_->state())
      if (own == name) return tensor;
  throw RangeError(str("detector: no parameter, buffer or optimizer state is named '", name, "'"));
}

void TrainingSession::write(const std::string& name, const std::vector<float>& values) {
  Tensor target = find(name);
  if (static_cast<int64_t>(values.size()) != target.numel())
    throw ShapeError(str("detector.write: ", name, " must hold ", target.numel(), " numbers ",
                         target.shape(), ", got ", values.size()));
  target.copy_from(Tensor::from(values, target.shape()));
}

Tensor TrainingSession::gradient(const std::string& name) {
  if (Parameter* p = detector_->parameters().find(name)) return p->value.grad();
  throw RangeError(str("detector.gradient: no parameter is named '", name, "'"));
}

std::vector<std::string> TrainingSession::optimizer_state() {
  std::vector<std::string> names{kIterations, kPasses};
  if (optimizer_)
    for (const auto& entry : optimizer_->state()) names.push_back(entry.first);
  return names;
}

}  // namespace mixpl
