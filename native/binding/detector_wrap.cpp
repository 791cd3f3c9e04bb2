#include "binding/detector_wrap.h"

#include "binding/addon.h"
#include "binding/convert.h"
#include "binding/tensor_wrap.h"
#include "core/check.h"

namespace mixpl::binding {
namespace {

constexpr napi_type_tag kDetectorTag = {0x6d6978706c446574ULL, 0x6563746f72000001ULL};

// sizes is [2N]: height, width per image.
std::vector<InputSize> read_sizes(const Args& args, size_t i, const char* name, int64_t images) {
  const std::vector<float> flat = args.values<float>(i, name);
  if (static_cast<int64_t>(flat.size()) != 2 * images)
    throw ShapeError(str("detector: ", name, " must hold ", 2 * images,
                         " numbers (height, width per image), got ", flat.size()));
  std::vector<InputSize> sizes;
  for (int64_t n = 0; n < images; ++n) sizes.push_back({flat[2 * n], flat[2 * n + 1]});
  return sizes;
}

Tensor check_pixels(const Tensor& pixels) {
  const Check check("detector");
  check.floating("images", pixels);
  check.rank("images", pixels, 4, "N, H, W, 3");
  check.size("images", pixels, 3, 3, "RGB or BGR");
  return pixels;
}

// A batch may come from anywhere; one that was composed for this device is not copied.
ImageBatch moved(const ImageBatch& batch, Device device) {
  return {batch.pixels.to(device), batch.sizes, batch.pad_sizes};
}

// boxes [4 sum(counts)], labels [sum(counts)], counts [N] -> one Target per image.
std::vector<Target> read_targets(const Args& args, size_t i, int64_t images) {
  const std::vector<float> boxes = args.values<float>(i, "boxes");
  const std::vector<int32_t> labels = args.values<int32_t>(i + 1, "labels");
  const std::vector<int32_t> counts = args.values<int32_t>(i + 2, "counts");
  int64_t total = 0;
  for (int32_t c : counts) total += c;
  if (static_cast<int64_t>(counts.size()) != images ||
      4 * total != static_cast<int64_t>(boxes.size()) ||
      total != static_cast<int64_t>(labels.size()))
    throw ShapeError(str("detector.loss: targets must have one entry per image (", images,
                         ") with 4 numbers a box and one label a box, got ", counts.size(),
                         " entries, ", boxes.size(), " box numbers, ", labels.size(), " labels"));
  std::vector<Target> targets;
  int64_t at = 0;
  for (int32_t c : counts) {
    targets.push_back(
        {Tensor::from(std::vector<float>(boxes.begin() + 4 * at, boxes.begin() + 4 * (at + c)),
                      {c, 4}),
         Tensor::from(std::vector<int32_t>(labels.begin() + at, labels.begin() + at + c), {c})});
    at += c;
  }
  return targets;
}

struct Pass {
  ImageBatch images;
  std::vector<Target> targets;
};

// images, sizes, padSizes, boxes, labels, counts
Pass read_pass(const Args& args) {
  const Tensor pixels = check_pixels(args.tensor(0, "images"));
  const int64_t n = pixels.size(0);
  return {{pixels, read_sizes(args, 1, "sizes", n), read_sizes(args, 2, "padSizes", n)},
          read_targets(args, 3, n)};
}

Napi::Object to_object(Napi::Env env, const TrainingSession::LossValues& values) {
  Napi::Object out = Napi::Object::New(env);
  for (const auto& [name, value] : values) out.Set(name, value);
  return out;
}

// images, sizes
ImageBatch read_batch(const Args& args) {
  const Tensor pixels = check_pixels(args.tensor(0, "images"));
  const std::vector<InputSize> sizes = read_sizes(args, 1, "sizes", pixels.size(0));
  return {pixels, sizes, sizes};
}

Napi::Value to_array(Napi::Env env, const std::vector<Detections>& found) {
  Napi::Array out = Napi::Array::New(env, found.size());
  for (size_t i = 0; i < found.size(); ++i) {
    Napi::Object one = Napi::Object::New(env);
    one.Set("boxes", to_js(env, found[i].boxes));
    one.Set("scores", to_js(env, found[i].scores));
    one.Set("labels", to_js(env, found[i].labels));
    out.Set(i, one);
  }
  return out;
}

BufferPolicy read_policy(const std::string& text) {
  if (text == "skip") return BufferPolicy::skip;
  if (text == "copy") return BufferPolicy::copy;
  if (text == "average") return BufferPolicy::average;
  throw ConfigError(str("ema: buffers must be 'skip', 'copy' or 'average', got '", text, "'"));
}

Finish nothing() {
  return [](Napi::Env env) { return env.Undefined(); };
}

// createDetector(configJson, device, computeDtype, seed) -> Promise<Detector>
Napi::Value create_detector(const Napi::CallbackInfo& info) {
  const Args args(info, "createDetector");
  return guarded(
      info.Env(),
      [&]() -> Napi::Value {
        const std::string dtype = args.text(2, "dtype");
        if (dtype != "f32" && dtype != "bf16")
          throw DTypeError(str("createDetector: dtype must be 'f32' or 'bf16', got '", dtype, "'"));
        const Device device = Device::parse(args.text(1, "device"));
        const auto seed = static_cast<uint64_t>(args.integer(3, "seed"));
        return executor_for(info.Env(), device)
            .post(info.Env(), "createDetector", [=, config = args.text(0, "config")]() -> Finish {
              const auto session = std::make_shared<TrainingSession>(
                  config, device, dtype == "bf16" ? DType::bf16 : DType::f32, seed);
              return [session](Napi::Env env) -> Napi::Value {
                const Napi::Object object =
                    env.GetInstanceData<AddonState>()->detector_constructor.New({});
                DetectorWrap::Unwrap(object)->hold(session);
                return object;
              };
            });
      },
      "createDetector");
}

}  // namespace

Napi::Function DetectorWrap::define(Napi::Env env) {
  return DefineClass(
      env, "Detector",
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
       InstanceMethod<&DetectorWrap::optimizer_state>("optimizerState"),
       InstanceMethod<&DetectorWrap::read>("read"), InstanceMethod<&DetectorWrap::write>("write"),
       InstanceMethod<&DetectorWrap::gradient>("gradient"),
       InstanceMethod<&DetectorWrap::zero_gradients>("zeroGradients"),
       InstanceMethod<&DetectorWrap::dispose>("dispose")});
}

DetectorWrap::DetectorWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<DetectorWrap>(info) {
  info.This().As<Napi::Object>().TypeTag(&kDetectorTag);
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

Napi::Value DetectorWrap::configure_optimizer(const Napi::CallbackInfo& info) {
  const Args args(info, "detector.configureOptimizer");
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto session = this->session("detector.configureOptimizer");
    return executor_for(info.Env(), session->device())
        .post(info.Env(), "detector.configureOptimizer", [session, json = args.text(0, "options")] {
          session->configure_optimizer(json);
          return nothing();
        });
  });
}

// loss(images, sizes, padSizes, boxes, labels, counts) -> Promise<Record<string, number>>
Napi::Value DetectorWrap::loss(const Napi::CallbackInfo& info) {
  const Args args(info, "detector.loss");
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto session = this->session("detector.loss");
    return executor_for(info.Env(), session->device())
        .post(info.Env(), "detector.loss", [session, pass = read_pass(args)]() -> Finish {
          const auto values = session->loss(moved(pass.images, session->device()), pass.targets);
          return [values](Napi::Env env) { return to_object(env, values); };
        });
  });
}

// forward(images, sizes, padSizes, boxes, labels, counts): the values stay where they are
Napi::Value DetectorWrap::forward(const Napi::CallbackInfo& info) {
  const Args args(info, "detector.forward");
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto session = this->session("detector.forward");
    return executor_for(info.Env(), session->device())
        .post(info.Env(), "detector.forward", [session, pass = read_pass(args)] {
          session->forward(moved(pass.images, session->device()), pass.targets);
          return nothing();
        });
  });
}

// lossValues() -> Promise<Record<string, number>[]>: see TrainingSession::read_losses
Napi::Value DetectorWrap::loss_values(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto session = this->session("detector.lossValues");
    return executor_for(info.Env(), session->device())
        .post(info.Env(), "detector.lossValues", [session]() -> Finish {
          return [passes = session->read_losses()](Napi::Env env) -> Napi::Value {
            Napi::Array out = Napi::Array::New(env, passes.size());
            for (size_t i = 0; i < passes.size(); ++i) out.Set(i, to_object(env, passes[i]));
            return out;
          };
        });
  });
}

Napi::Value DetectorWrap::backward(const Napi::CallbackInfo& info) {
  const Args args(info, "detector.backward");
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto session = this->session("detector.backward");
    return executor_for(info.Env(), session->device())
        .post(info.Env(), "detector.backward",
              [session, weight = static_cast<float>(args.number(0, "weight"))] {
                session->backward(weight);
                return nothing();
              });
  });
}

Napi::Value DetectorWrap::discard(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto session = this->session("detector.discard");
    return executor_for(info.Env(), session->device())
        .post(info.Env(), "detector.discard", [session] {
          session->discard();
          return nothing();
        });
  });
}

Napi::Value DetectorWrap::step(const Napi::CallbackInfo& info) {
  const Args args(info, "detector.step");
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto session = this->session("detector.step");
    return executor_for(info.Env(), session->device())
        .post(info.Env(), "detector.step", [session, lr = args.number(0, "lr")]() -> Finish {
          const double norm = session->step(lr);
          return [norm](Napi::Env env) { return Napi::Number::New(env, norm); };
        });
  });
}

// predict(images, sizes) -> Promise<{ boxes, scores, labels }[]>
Napi::Value DetectorWrap::predict(const Napi::CallbackInfo& info) {
  const Args args(info, "detector.predict");
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto session = this->session("detector.predict");
    return executor_for(info.Env(), session->device())
        .post(info.Env(), "detector.predict", [session, batch = read_batch(args)]() -> Finish {
          return [found = session->predict(moved(batch, session->device()))](Napi::Env env) {
            return to_array(env, found);
          };
        });
  });
}

// predictLater(images, sizes): the boxes stay where they are
Napi::Value DetectorWrap::predict_later(const Napi::CallbackInfo& info) {
  const Args args(info, "detector.predictLater");
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto session = this->session("detector.predictLater");
    return executor_for(info.Env(), session->device())
        .post(info.Env(), "detector.predictLater", [session, batch = read_batch(args)] {
          session->predict_later(moved(batch, session->device()));
          return nothing();
        });
  });
}

// predictions() -> Promise<{ boxes, scores, labels }[][]>: of every predictLater() so far
Napi::Value DetectorWrap::predictions(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto session = this->session("detector.predictions");
    return executor_for(info.Env(), session->device())
        .post(info.Env(), "detector.predictions", [session]() -> Finish {
          return [batches = session->read_predictions()](Napi::Env env) -> Napi::Value {
            Napi::Array out = Napi::Array::New(env, batches.size());
            for (size_t i = 0; i < batches.size(); ++i) out.Set(i, to_array(env, batches[i]));
            return out;
          };
        });
  });
}

// ema(student, momentum, buffers): this = (1 - momentum) this + momentum student
Napi::Value DetectorWrap::ema(const Napi::CallbackInfo& info) {
  const Args args(info, "detector.ema");
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto session = this->session("detector.ema");
    const Napi::Value other = args.value(0);
    if (!other.IsObject() || !other.As<Napi::Object>().CheckTypeTag(&kDetectorTag))
      args.fail("student", "a detector", other);
    const auto student =
        DetectorWrap::Unwrap(other.As<Napi::Object>())->session("detector.ema: student");
    const double momentum = args.number(1, "momentum");
    const BufferPolicy policy = read_policy(args.text(2, "buffers"));
    return executor_for(info.Env(), session->device()).post(info.Env(), "detector.ema", [=] {
      session->ema(*student, momentum, policy);
      return nothing();
    });
  });
}

// optimizerState() -> Promise<string[]>: names that read() and write() take
Napi::Value DetectorWrap::optimizer_state(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto session = this->session("detector.optimizerState");
    return executor_for(info.Env(), session->device())
        .post(info.Env(), "detector.optimizerState", [session]() -> Finish {
          return [names = session->optimizer_state()](Napi::Env env) -> Napi::Value {
            Napi::Array out = Napi::Array::New(env);
            for (const std::string& name : names) out.Set(out.Length(), name);
            return out;
          };
        });
  });
}

// read(name) -> Promise<Float32Array>, in our layout (weights OHWI)
Napi::Value DetectorWrap::read(const Napi::CallbackInfo& info) {
  const Args args(info, "detector.read");
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto session = this->session("detector.read");
    return executor_for(info.Env(), session->device())
        .post(info.Env(), "detector.read", [session, name = args.text(0, "name")]() -> Finish {
          return
              [v = session->find(name).to_vector<float>()](Napi::Env env) { return to_js(env, v); };
        });
  });
}

// write(name, values: Float32Array)
Napi::Value DetectorWrap::write(const Napi::CallbackInfo& info) {
  const Args args(info, "detector.write");
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto session = this->session("detector.write");
    return executor_for(info.Env(), session->device())
        .post(info.Env(), "detector.write",
              [session, name = args.text(0, "name"), v = args.values<float>(1, "values")] {
                session->write(name, v);
                return nothing();
              });
  });
}

// gradient(name) -> Promise<Float32Array | null>: gathered since the last step
Napi::Value DetectorWrap::gradient(const Napi::CallbackInfo& info) {
  const Args args(info, "detector.gradient");
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto session = this->session("detector.gradient");
    return executor_for(info.Env(), session->device())
        .post(info.Env(), "detector.gradient", [session, name = args.text(0, "name")]() -> Finish {
          const Tensor grad = session->gradient(name);
          if (!grad.defined()) return [](Napi::Env env) { return env.Null(); };
          return [v = grad.to_vector<float>()](Napi::Env env) { return to_js(env, v); };
        });
  });
}

Napi::Value DetectorWrap::zero_gradients(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto session = this->session("detector.zeroGradients");
    return executor_for(info.Env(), session->device())
        .post(info.Env(), "detector.zeroGradients", [session] {
          session->zero_gradients();
          return nothing();
        });
  });
}

Napi::Value DetectorWrap::dispose(const Napi::CallbackInfo& info) {
  session_.reset();  // a queued job keeps its own reference
  return info.Env().Undefined();
}

void register_detector(Napi::Env env, Napi::Object exports) {
  env.GetInstanceData<AddonState>()->detector_constructor =
      Napi::Persistent(DetectorWrap::define(env));
  exports.Set("createDetector", Napi::Function::New(env, create_detector));
}

}  // namespace mixpl::binding
