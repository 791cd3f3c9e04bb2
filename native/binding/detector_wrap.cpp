#include "binding/detector_wrap.h"

#include <algorithm>
#include <optional>
#include <type_traits>

#include "binding/addon.h"
#include "binding/cancellation.h"
#include "binding/collective_wrap.h"
#include "binding/convert.h"
#include "binding/detector_inputs.h"
#include "binding/tensor_wrap.h"
#include "models/analysis/grad_cam.h"
#include "models/analysis/gradient_density.h"
#include "models/analysis/probed_pass.h"
#include "models/analysis/traced_prediction.h"

namespace mixpl::binding {
namespace {

constexpr napi_type_tag kDetectorTag = {0x6d6978706c446574ULL, 0x6563746f72000001ULL};

// What jobs return, as JavaScript sees it.
Napi::Value result(Napi::Env env, double value) { return Napi::Number::New(env, value); }
Napi::Value result(Napi::Env env, const std::vector<float>& values) { return to_js(env, values); }
Napi::Value result(Napi::Env env, const std::vector<uint8_t>& bytes) { return to_js(env, bytes); }

Napi::Value result(Napi::Env env, const TrainingSession::LossValues& losses) {
  Napi::Object out = Napi::Object::New(env);
  for (const auto& [name, value] : losses) out.Set(name, value);
  return out;
}

// Names of tensors, and how many numbers each has.
using Lengths = std::vector<std::pair<std::string, int64_t>>;

Napi::Value result(Napi::Env env, const Lengths& lengths) {
  Napi::Object out = Napi::Object::New(env);
  for (const auto& [name, length] : lengths) out.Set(name, static_cast<double>(length));
  return out;
}

Napi::Value result(Napi::Env env, const Detections& found) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("boxes", to_js(env, found.boxes));
  out.Set("scores", to_js(env, found.scores));
  out.Set("labels", to_js(env, found.labels));
  return out;
}

Napi::Value result(Napi::Env env, const ProbeValues::Level& level) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("shape", to_js(env, level.shape));
  out.Set("values", to_js(env, level.values));
  return out;
}

Napi::Value result(Napi::Env env, const ProbeValues::Scores& scores) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("classes", static_cast<double>(scores.classes));
  out.Set("values", to_js(env, scores.values));
  out.Set("labels", to_js(env, scores.labels));
  out.Set("pairs", to_js(env, scores.pairs));
  return out;
}

Napi::Value result(Napi::Env env, const GradientDensity& density) {
  const auto numbers = [&](const std::vector<int64_t>& counts) {
    return to_js(env, std::vector<double>(counts.begin(), counts.end()));
  };
  Napi::Object out = Napi::Object::New(env);
  out.Set("counts", numbers(density.counts));
  out.Set("aboveHalf", numbers(density.above_half));
  return out;
}

Napi::Value result(Napi::Env env, const GradCam& cam) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("level", cam.level);
  out.Set("height", static_cast<double>(cam.height));
  out.Set("width", static_cast<double>(cam.width));
  out.Set("heat", to_js(env, cam.heat));
  out.Set("rows", static_cast<double>(cam.rows));
  out.Set("score", cam.score);
  return out;
}

template <typename T>
Napi::Value result(Napi::Env env, const std::optional<T>& value) {
  return value ? result(env, *value) : env.Null();
}

template <typename T>
Napi::Value result(Napi::Env env, const std::vector<T>& values) {
  Napi::Array out = Napi::Array::New(env, values.size());
  for (size_t i = 0; i < values.size(); ++i) out.Set(i, result(env, values[i]));
  return out;
}

Napi::Value result(Napi::Env env, const ProbeValues& seen) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("firstLevel", seen.first_level);
  out.Set("levels", result(env, seen.levels));
  out.Set("scores", result(env, seen.scores));
  out.Set("probabilities", seen.probabilities);
  return out;
}

// Of any type.
std::vector<float> numbers_of(const Tensor& t) {
  if (t.dtype() == DType::f32 || t.dtype() == DType::bf16) return floats_of(t);
  std::vector<float> numbers;
  for (int64_t i = 0; i < t.numel(); ++i)
    numbers.push_back(t.dtype() == DType::u8 ? static_cast<float>(t.data<uint8_t>()[i])
                                             : static_cast<float>(t.data<int32_t>()[i]));
  return numbers;
}

Napi::Value result(Napi::Env env, const TracedPrediction& traced) {
  const auto ids = [&](const std::vector<int>& numbers) {
    return to_js(env, std::vector<int32_t>(numbers.begin(), numbers.end()));
  };
  Napi::Array steps = Napi::Array::New(env), shapes = Napi::Array::New(env);
  for (const TraceStep& step : traced.trace.steps()) {
    Napi::Object out = Napi::Object::New(env), numbers = Napi::Object::New(env);
    for (const auto& [name, value] : step.numbers) numbers.Set(name, value);
    out.Set("op", step.op);
    out.Set("inputs", ids(step.inputs));
    out.Set("outputs", ids(step.outputs));
    out.Set("numbers", numbers);
    steps.Set(steps.Length(), out);
  }
  for (const Shape& shape : traced.trace.shapes()) shapes.Set(shapes.Length(), to_js(env, shape));
  Napi::Object constants = Napi::Object::New(env);
  for (const auto& [source, values] : traced.trace.sources())
    if (source != traced.input)
      constants.Set(static_cast<uint32_t>(source), to_js(env, numbers_of(values)));
  Napi::Object out = Napi::Object::New(env);
  out.Set("input", traced.input);
  out.Set("steps", steps);
  out.Set("shapes", shapes);
  out.Set("constants", constants);
  return out;
}

BufferPolicy read_policy(const std::string& text) {
  if (text == "skip") return BufferPolicy::skip;
  if (text == "copy") return BufferPolicy::copy;
  if (text == "average") return BufferPolicy::average;
  throw ConfigError(str("ema: buffers must be 'skip', 'copy' or 'average', got '", text, "'"));
}

// createDetector(configJson, device, computeDtype, seed) -> Promise<Detector>
Napi::Value create_detector(const Napi::CallbackInfo& info) {
  const Args args(info, "createDetector");
  return guarded(args, [&]() -> Napi::Value {
    const std::string dtype = args.text(2, "dtype");
    if (dtype != "f32" && dtype != "tf32" && dtype != "bf16")
      throw DTypeError(
          str("createDetector: dtype must be 'f32', 'tf32' or 'bf16', got '", dtype, "'"));
    const ComputeType compute{dtype == "bf16" ? DType::bf16 : DType::f32, dtype == "tf32"};
    const Device device = Device::parse(args.text(1, "device"));
    const auto seed = static_cast<uint64_t>(args.integer(3, "seed"));
    return executor_for(info.Env(), device)
        .post(info.Env(), "createDetector", [=, config = args.text(0, "config")]() -> Finish {
          const auto session = std::make_shared<TrainingSession>(config, device, compute, seed);
          return [session](Napi::Env env) -> Napi::Value {
            const Napi::Object object =
                env.GetInstanceData<AddonState>()->detector_constructor.New({});
            DetectorWrap::Unwrap(object)->hold(session);
            return object;
          };
        });
  });
}

}  // namespace

Napi::Function DetectorWrap::define(Napi::Env env) {
  return DefineClass(env, "Detector",
                     {InstanceAccessor<&DetectorWrap::device>("device"),
                      InstanceMethod<&DetectorWrap::parameters>("parameters"),
                      InstanceMethod<&DetectorWrap::configure_optimizer>("configureOptimizer"),
                      InstanceMethod<&DetectorWrap::loss>("loss"),
                      InstanceMethod<&DetectorWrap::forward>("forward"),
                      InstanceMethod<&DetectorWrap::loss_values>("lossValues"),
                      InstanceMethod<&DetectorWrap::backward>("backward"),
                      InstanceMethod<&DetectorWrap::discard>("discard"),
                      InstanceMethod<&DetectorWrap::step>("step"),
                      InstanceMethod<&DetectorWrap::predict>("predict"),
                      InstanceMethod<&DetectorWrap::predict_later>("predictLater"),
                      InstanceMethod<&DetectorWrap::predictions>("predictions"),
                      InstanceMethod<&DetectorWrap::ema>("ema"),
                      InstanceMethod<&DetectorWrap::step_student>("stepStudent"),
                      InstanceMethod<&DetectorWrap::optimizer_state>("optimizerState"),
                      InstanceMethod<&DetectorWrap::read>("read"),
                      InstanceMethod<&DetectorWrap::read_into>("readInto"),
                      InstanceMethod<&DetectorWrap::write>("write"),
                      InstanceMethod<&DetectorWrap::gradient>("gradient"),
                      InstanceMethod<&DetectorWrap::zero_gradients>("zeroGradients"),
                      InstanceMethod<&DetectorWrap::start_part>("startPart"),
                      InstanceMethod<&DetectorWrap::reached>("reached"),
                      InstanceMethod<&DetectorWrap::sum_gradients>("sumGradients"),
                      InstanceMethod<&DetectorWrap::probe>("probe"),
                      InstanceMethod<&DetectorWrap::gradient_density>("gradientDensity"),
                      InstanceMethod<&DetectorWrap::grad_cam>("gradCam"),
                      InstanceMethod<&DetectorWrap::trace>("trace"),
                      InstanceMethod<&DetectorWrap::dispose>("dispose")});
}

DetectorWrap::DetectorWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<DetectorWrap>(info) {
  info.This().As<Napi::Object>().TypeTag(&kDetectorTag);
}

void DetectorWrap::hold(std::shared_ptr<TrainingSession> session) {
  session_ = std::move(session);
  // At least the weights: a detector that nobody disposes of is a few bytes to V8, which would not
  // look for it before memory is gone.
  for (const Parameter& p : session_->detector().parameters().all()) reported_ += p.value.nbytes();
  Napi::MemoryManagement::AdjustExternalMemory(Env(), reported_);
}

void DetectorWrap::release() {
  if (reported_) Napi::MemoryManagement::AdjustExternalMemory(Env(), -reported_);
  reported_ = 0;
  session_.reset();  // a queued job keeps its own reference
}

std::shared_ptr<TrainingSession> DetectorWrap::session(const char* call) const {
  if (!session_) throw DisposedError(str(call, ": the detector was disposed"));
  return session_;
}

Napi::Value DetectorWrap::device(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    return Napi::String::New(info.Env(), to_string(session("detector.device")->device()));
  });
}

Napi::Value DetectorWrap::parameters(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto session = this->session("detector.parameters");
    Napi::Array out = Napi::Array::New(info.Env());
    for (const Parameter& p : session->detector().parameters().all()) {
      Napi::Object entry = Napi::Object::New(info.Env());
      entry.Set("name", p.name);
      entry.Set("shape", to_js(info.Env(), p.value.shape()));
      entry.Set("kind", p.kind == ParameterKind::buffer ? "buffer" : "weight");
      entry.Set("norm", p.norm);
      entry.Set("trainable", p.trainable);
      out.Set(out.Length(), entry);
    }
    return out;
  });
}

template <class Prepare>
Napi::Value DetectorWrap::post(const Napi::CallbackInfo& info, const char* call, Prepare prepare,
                               const std::vector<Napi::Value>& keep, Cancelled cancelled) {
  const Args args(info, call);
  return guarded(args, [&]() -> Napi::Value {
    const auto session = this->session(call);
    return executor_for(info.Env(), session->device())
        .post(
            info.Env(), call,
            [session, job = prepare(args)]() -> Finish {
              if constexpr (std::is_void_v<decltype(job(*session))>) {
                job(*session);
                return [](Napi::Env env) { return env.Undefined(); };
              } else {
                return [value = job(*session)](Napi::Env env) { return result(env, value); };
              }
            },
            keep, cancelled);
  });
}

Napi::Value DetectorWrap::configure_optimizer(const Napi::CallbackInfo& info) {
  return post(info, "detector.configureOptimizer", [](const Args& args) {
    return [json = args.text(0, "options")](TrainingSession& s) { s.configure_optimizer(json); };
  });
}

// loss(images, sizes, padSizes, boxes, labels, counts) -> Promise<Record<string, number>>
Napi::Value DetectorWrap::loss(const Napi::CallbackInfo& info) {
  return post(info, "detector.loss", [](const Args& args) {
    return [pass = read_pass(args)](TrainingSession& s) {
      return s.loss(moved(pass.images, s.device()), pass.targets);
    };
  });
}

// forward(images, sizes, padSizes, boxes, labels, counts, those of further batches …): the values
// stay where they are
Napi::Value DetectorWrap::forward(const Napi::CallbackInfo& info) {
  return post(info, "detector.forward", [](const Args& args) {
    return
        [passes = read_passes(args)](TrainingSession& s) { s.forward(moved(passes, s.device())); };
  });
}

// lossValues() -> Promise<Record<string, number>[]>: see TrainingSession::read_losses
Napi::Value DetectorWrap::loss_values(const Napi::CallbackInfo& info) {
  return post(info, "detector.lossValues",
              [](const Args&) { return [](TrainingSession& s) { return s.read_losses(); }; });
}

// backward(weights: Float32Array), one a pass
Napi::Value DetectorWrap::backward(const Napi::CallbackInfo& info) {
  return post(info, "detector.backward", [](const Args& args) {
    return
        [weights = args.values<float>(0, "weights")](TrainingSession& s) { s.backward(weights); };
  });
}

Napi::Value DetectorWrap::discard(const Napi::CallbackInfo& info) {
  return post(info, "detector.discard",
              [](const Args&) { return [](TrainingSession& s) { s.discard(); }; });
}

Napi::Value DetectorWrap::step(const Napi::CallbackInfo& info) {
  return post(info, "detector.step", [](const Args& args) {
    return [lr = args.number(0, "lr")](TrainingSession& s) { return s.step(lr); };
  });
}

// predict(images, sizes, cancellation?) -> Promise<{ boxes, scores, labels }[]>
Napi::Value DetectorWrap::predict(const Napi::CallbackInfo& info) {
  const auto prepare = [](const Args& args) {
    return [batch = read_batch(args)](TrainingSession& s) {
      return s.predict(moved(batch, s.device()));
    };
  };
  const Args args(info, "detector.predict");
  return post(info, "detector.predict", prepare, {}, cancelled_at(args, 2, "cancellation"));
}

// predictLater(images, sizes): the boxes stay where they are
Napi::Value DetectorWrap::predict_later(const Napi::CallbackInfo& info) {
  return post(info, "detector.predictLater", [](const Args& args) {
    return [batch = read_batch(args)](TrainingSession& s) {
      s.predict_later(moved(batch, s.device()));
    };
  });
}

// predictions() -> Promise<{ boxes, scores, labels }[][]>: of every predictLater() so far
Napi::Value DetectorWrap::predictions(const Napi::CallbackInfo& info) {
  return post(info, "detector.predictions",
              [](const Args&) { return [](TrainingSession& s) { return s.read_predictions(); }; });
}

std::shared_ptr<TrainingSession> DetectorWrap::student_of(const Args& args) {
  const Napi::Value other = args.value(0);
  if (!other.IsObject() || !other.As<Napi::Object>().CheckTypeTag(&kDetectorTag))
    args.fail("student", "a detector", other);
  return Unwrap(other.As<Napi::Object>())->session("detector.ema: student");
}

// ema(student, momentum, buffers): this = (1 - momentum) this + momentum student
Napi::Value DetectorWrap::ema(const Napi::CallbackInfo& info) {
  return post(info, "detector.ema", [](const Args& args) {
    return [student = student_of(args), momentum = args.number(1, "momentum"),
            policy = read_policy(args.text(2, "buffers"))](TrainingSession& s) {
      s.ema(*student, momentum, policy);
    };
  });
}

// stepStudent(student, lr, momentum, buffers) -> Promise<number>: student.step(lr), then this.ema()
Napi::Value DetectorWrap::step_student(const Napi::CallbackInfo& info) {
  return post(info, "detector.stepStudent", [](const Args& args) {
    return [student = student_of(args), lr = args.number(1, "lr"),
            momentum = args.number(2, "momentum"), policy = read_policy(args.text(3, "buffers"))](
               TrainingSession& s) { return s.step_student(*student, lr, momentum, policy); };
  });
}

// optimizerState() -> Promise<Record<string, number>>: names that read() and write() take, and how
// many numbers each has
Napi::Value DetectorWrap::optimizer_state(const Napi::CallbackInfo& info) {
  return post(info, "detector.optimizerState", [](const Args&) {
    return [](TrainingSession& s) {
      Lengths lengths;
      for (const std::string& name : s.optimizer_state())
        lengths.emplace_back(name, s.find(name).numel());
      return lengths;
    };
  });
}

// read(name) -> Promise<Float32Array>, in our layout (weights OHWI)
Napi::Value DetectorWrap::read(const Napi::CallbackInfo& info) {
  return post(info, "detector.read", [](const Args& args) {
    return [name = args.text(0, "name")](TrainingSession& s) {
      return s.find(name).to_vector<float>();
    };
  });
}

// readInto(name, values: Float32Array): read() without a copy on the JS thread, whose caller leaves
// the array alone until it is filled
Napi::Value DetectorWrap::read_into(const Napi::CallbackInfo& info) {
  return post(info, "detector.read",
              [](const Args& args) {
                return [name = args.text(0, "name"),
                        into = args.floats(1, "values")](TrainingSession& s) {
                  const Tensor values = s.find(name).to(Device::cpu());
                  if (values.numel() != static_cast<int64_t>(into.size()))
                    throw ShapeError(str("detector.read: ", name, " has ", values.numel(),
                                         " numbers, got an array of ", into.size()));
                  std::copy_n(values.data<float>(), into.size(), into.data());
                };
              },
              {info[1]});
}

// write(name, values: Float32Array)
Napi::Value DetectorWrap::write(const Napi::CallbackInfo& info) {
  return post(info, "detector.write", [](const Args& args) {
    return [name = args.text(0, "name"), values = args.values<float>(1, "values")](
               TrainingSession& s) { s.write(name, values); };
  });
}

// gradient(name) -> Promise<Float32Array | null>: gathered since the last step
Napi::Value DetectorWrap::gradient(const Napi::CallbackInfo& info) {
  return post(info, "detector.gradient", [](const Args& args) {
    return [name = args.text(0, "name")](TrainingSession& s) -> std::optional<std::vector<float>> {
      const Tensor gradient = s.gradient(name);
      if (!gradient.defined()) return std::nullopt;
      return gradient.to_vector<float>();
    };
  });
}

Napi::Value DetectorWrap::zero_gradients(const Napi::CallbackInfo& info) {
  return post(info, "detector.zeroGradients",
              [](const Args&) { return [](TrainingSession& s) { s.zero_gradients(); }; });
}

// startPart(part)
Napi::Value DetectorWrap::start_part(const Napi::CallbackInfo& info) {
  return post(info, "detector.startPart", [](const Args& args) {
    return [part = args.integer(0, "part")](TrainingSession& s) { s.start_part(part); };
  });
}

// reached() -> Promise<Uint8Array>: see TrainingSession
Napi::Value DetectorWrap::reached(const Napi::CallbackInfo& info) {
  return post(info, "detector.reached",
              [](const Args&) { return [](TrainingSession& s) { return s.reached(); }; });
}

// sumGradients(collective, reached: Uint8Array)
Napi::Value DetectorWrap::sum_gradients(const Napi::CallbackInfo& info) {
  return post(info, "detector.sumGradients", [](const Args& args) {
    return [open = collective_at(args, 0, "collective"),
            reached = args.values<uint8_t>(1, "reached")](TrainingSession& s) {
      s.sum_gradients(*open->collective, open->place.processes, reached);
    };
  });
}

// probe(images, sizes, padSizes, boxes, labels, counts) -> Promise<what the pass shows>
Napi::Value DetectorWrap::probe(const Napi::CallbackInfo& info) {
  return post(info, "detector.probe", [](const Args& args) {
    return [pass = read_pass(args)](TrainingSession& s) {
      return s.analyse([&](Detector& detector) {
        return values_of(
            probed_pass("probe", detector, moved(pass.images, s.device()), pass.targets));
      });
    };
  });
}

// gradientDensity(images, sizes, padSizes, boxes, labels, counts of the truth, bins, then boxes,
// labels, counts of each set of pseudo labels) -> Promise<{ counts, aboveHalf }[]>, one a set
Napi::Value DetectorWrap::gradient_density(const Napi::CallbackInfo& info) {
  return post(info, "detector.gradientDensity", [](const Args& args) {
    const LabelledBatch pass = read_pass(args);
    std::vector<std::vector<Target>> pseudo;
    for (size_t i = 7; args.present(i); i += 3)
      pseudo.push_back(read_targets(args, i, pass.images.pixels.size(0)));
    return [pass, pseudo, bins = args.integer(6, "bins")](TrainingSession& s) {
      return s.analyse([&](Detector& detector) {
        return mixpl::gradient_density(detector, moved(pass.images, s.device()), pass.targets,
                                       pseudo, bins);
      });
    };
  });
}

// gradCam(images, sizes, padSizes, boxes, labels, counts, level: 0 = the one with most gradient)
//   -> Promise<{ level, height, width, heat, rows, score }[]>, one per image
Napi::Value DetectorWrap::grad_cam(const Napi::CallbackInfo& info) {
  return post(info, "detector.gradCam", [](const Args& args) {
    return [pass = read_pass(args), level = args.integer(6, "level")](TrainingSession& s) {
      return s.analyse([&](Detector& detector) {
        return mixpl::grad_cam(detector, moved(pass.images, s.device()), pass.targets, level);
      });
    };
  });
}

// trace(height, width of the input, height, width of the picture in it)
//   -> Promise<{ input, steps, shapes, constants }>: see NativeTrace in lib/native.ts
Napi::Value DetectorWrap::trace(const Napi::CallbackInfo& info) {
  return post(info, "detector.trace", [](const Args& args) {
    return
        [height = args.integer(0, "height"), width = args.integer(1, "width"),
         size = InputSize{static_cast<float>(args.number(2, "imageHeight")),
                          static_cast<float>(args.number(3, "imageWidth"))}](TrainingSession& s) {
          return s.analyse(
              [&](Detector& detector) { return traced_prediction(detector, height, width, size); });
        };
  });
}

Napi::Value DetectorWrap::dispose(const Napi::CallbackInfo& info) {
  release();
  return info.Env().Undefined();
}

void register_detector(Napi::Env env, Napi::Object exports) {
  env.GetInstanceData<AddonState>()->detector_constructor =
      Napi::Persistent(DetectorWrap::define(env));
  exports.Set("createDetector", Napi::Function::New(env, create_detector));
}

}  // namespace mixpl::binding
