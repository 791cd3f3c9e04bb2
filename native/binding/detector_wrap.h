// The JavaScript handle of a detector: forward, backward, step, EMA, state. See lib/detector.
#pragma once

#include <napi.h>

#include <memory>

#include "binding/executor.h"
#include "models/training_session.h"

namespace mixpl::binding {

class Args;

class DetectorWrap : public Napi::ObjectWrap<DetectorWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit DetectorWrap(const Napi::CallbackInfo& info);  // holds nothing yet
  ~DetectorWrap() override { release(); }

  void hold(std::shared_ptr<TrainingSession> session);

 private:
  Napi::Value device(const Napi::CallbackInfo& info);               // [sync] its name
  Napi::Value parameters(const Napi::CallbackInfo& info);           // [sync] names, shapes, kinds
  Napi::Value configure_optimizer(const Napi::CallbackInfo& info);  // [async]
  Napi::Value loss(const Napi::CallbackInfo& info);                 // [async]
  Napi::Value forward(const Napi::CallbackInfo& info);              // [async]
  Napi::Value loss_values(const Napi::CallbackInfo& info);          // [async]
  Napi::Value backward(const Napi::CallbackInfo& info);             // [async]
  Napi::Value discard(const Napi::CallbackInfo& info);              // [async]
  Napi::Value step(const Napi::CallbackInfo& info);                 // [async]
  Napi::Value predict(const Napi::CallbackInfo& info);              // [async]
  Napi::Value predict_later(const Napi::CallbackInfo& info);        // [async]
  Napi::Value predictions(const Napi::CallbackInfo& info);          // [async]
  Napi::Value ema(const Napi::CallbackInfo& info);                  // [async]
  Napi::Value step_student(const Napi::CallbackInfo& info);         // [async]
  Napi::Value optimizer_state(const Napi::CallbackInfo& info);      // [async]
  Napi::Value read(const Napi::CallbackInfo& info);                 // [async]
  Napi::Value read_into(const Napi::CallbackInfo& info);            // [async]
  Napi::Value write(const Napi::CallbackInfo& info);                // [async]
  Napi::Value gradient(const Napi::CallbackInfo& info);             // [async]
  Napi::Value zero_gradients(const Napi::CallbackInfo& info);       // [async]
  Napi::Value start_part(const Napi::CallbackInfo& info);           // [async]
  Napi::Value reached(const Napi::CallbackInfo& info);              // [async]
  Napi::Value sum_gradients(const Napi::CallbackInfo& info);        // [async]
  Napi::Value probe(const Napi::CallbackInfo& info);                // [async]
  Napi::Value gradient_density(const Napi::CallbackInfo& info);     // [async]
  Napi::Value grad_cam(const Napi::CallbackInfo& info);             // [async]
  Napi::Value trace(const Napi::CallbackInfo& info);                // [async]
  Napi::Value dispose(const Napi::CallbackInfo& info);              // [sync] idempotent

  /// The session of the detector that an argument is.
  static std::shared_ptr<TrainingSession> student_of(const Args& args);
  /// The session. @throws ERR_DISPOSED
  std::shared_ptr<TrainingSession> session(const char* call) const;

  /// A promise of what the job that prepare(args) makes here returns for the session, on its
  /// device's executor. `keep` are JS values that must outlive it.
  template <class Prepare>
  Napi::Value post(const Napi::CallbackInfo& info, const char* call, Prepare prepare,
                   const std::vector<Napi::Value>& keep = {}, Cancelled cancelled = nullptr);
  void release();

  std::shared_ptr<TrainingSession> session_;
  int64_t reported_ = 0;  // bytes told to V8's garbage collector
};

}  // namespace mixpl::binding
