// Generic access to every differentiable op: forward, and gradients for given output gradients.
#include <napi.h>

#include "autograd/tape.h"
#include "binding/addon.h"
#include "binding/convert.h"
#include "binding/tensor_wrap.h"
#include "ops/registry.h"

namespace mixpl::binding {
namespace {

// [async] runOp(name, inputs, optionsJson, {compute, training, device?, douts?, keepsDouts?}) ->
//   { outputs: Tensor[], gradients: (Tensor | null)[] }
// With `douts` (one tensor or null per output) gradients of every floating input are computed. Ops
// get copies of their own, which they may write into; with `keepsDouts` they read the caller's. It
// runs on `device`, or where its first input lies, or on the CPU.
Napi::Value run_op(const Napi::CallbackInfo& info) {
  const Args args(info, "runOp");
  return guarded(args, [&]() -> Napi::Value {
    const std::string name = args.text(0, "name");
    const NamedOp op = find_op(name);
    std::vector<Tensor> inputs = args.tensors(1, "inputs");
    const std::string json = args.present(2) ? args.text(2, "options") : "{}";
    Context context;
    if (!inputs.empty()) context.device = inputs[0].device();
    std::vector<Tensor> douts;
    bool backward = false, keeps_douts = false;
    if (args.present(3)) {
      const Napi::Object mode = args.object(3, "mode");
      if (mode.Get("compute").IsString())
        context.compute =
            mode.Get("compute").As<Napi::String>().Utf8Value() == "bf16" ? DType::bf16 : DType::f32;
      context.training = mode.Get("training").ToBoolean();
      if (mode.Get("device").IsString())
        context.device = Device::parse(mode.Get("device").As<Napi::String>().Utf8Value());
      keeps_douts = mode.Get("keepsDouts").ToBoolean();
      if (mode.Get("douts").IsArray()) {
        backward = true;
        const auto list = mode.Get("douts").As<Napi::Array>();
        for (uint32_t i = 0; i < list.Length(); ++i)
          douts.push_back(list.Get(i).IsNull() || list.Get(i).IsUndefined()
                              ? Tensor()
                              : unwrap_tensor(list.Get(i), "runOp", "douts"));
      }
    }
    Executor& executor = executor_for(info.Env(), context.device);
    return executor.post(info.Env(), name, [=]() mutable -> Finish {
      Tape tape;
      context.tape = backward ? &tape : nullptr;
      ContextScope scope(context);
      // Detached handles: gradients of this call must not stay on the caller's tensors.
      std::vector<Tensor> leaves;
      for (const Tensor& input : inputs) {
        leaves.push_back(input.detach());
        if (backward && is_floating(input.dtype())) leaves.back().set_requires_grad(true);
      }
      const Options options(json, name);
      std::vector<Tensor> outputs = op(leaves, options);
      options.finish();
      std::vector<Tensor> gradients;
      if (backward) {
        if (douts.size() != outputs.size())
          throw ShapeError(
              str("runOp: douts must hold ", outputs.size(), " entries, got ", douts.size()));
        std::vector<Tensor> roots, seeds;
        for (size_t i = 0; i < outputs.size(); ++i)
          if (douts[i].defined()) {
            roots.push_back(outputs[i]);
            seeds.push_back(keeps_douts ? douts[i].detach() : douts[i].clone());
          }
        tape.backward(roots, seeds);
        for (const Tensor& leaf : leaves) gradients.push_back(leaf.grad());
      }
      return [outputs, gradients](Napi::Env env) -> Napi::Value {
        Napi::Object result = Napi::Object::New(env);
        result.Set("outputs", to_js(env, outputs));
        result.Set("gradients", to_js(env, gradients));
        return result;
      };
    });
  });
}

Napi::Value list_ops(const Napi::CallbackInfo& info) {
  Napi::Array names = Napi::Array::New(info.Env());
  for (const std::string& name : op_names()) names.Set(names.Length(), name);
  return names;
}

}  // namespace

void register_ops(Napi::Env env, Napi::Object exports) {
  exports.Set("runOp", Napi::Function::New(env, run_op));
  exports.Set("opNames", Napi::Function::New(env, list_ops));
}

}  // namespace mixpl::binding
