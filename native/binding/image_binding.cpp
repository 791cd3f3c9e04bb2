#include <napi.h>

#include <atomic>
#include <cstring>
#include <vector>

#include "binding/addon.h"
#include "binding/convert.h"
#include "image/compose/compose.h"

namespace mixpl::binding {
namespace {

// Reads the flat plan that lib/augment/compose.ts writes; checks every count before using it.
class PlanReader {
 public:
  explicit PlanReader(const std::vector<double>& plan) : plan_(plan) {}

  std::vector<ComposeImage> read(size_t images) {
    std::vector<ComposeImage> out(images);
    for (ComposeImage& image : out) {
      image.width = whole();
      image.height = whole();
      image.layers.resize(count());
      for (ComposeLayer& l : image.layers) {
        l.source = whole();
        for (double& v : l.map) v = next();
        l.x1 = whole();
        l.y1 = whole();
        l.x2 = whole();
        l.y2 = whole();
        l.weight = static_cast<float>(next());
        for (float& v : l.fill) v = static_cast<float>(next());
        l.color_fill = next() != 0;
        l.antialias = next() != 0;
        l.color.resize(count());
        for (ColorStep& step : l.color) {
          const int op = whole();
          if (op < 0 || op > static_cast<int>(ColorOp::brightness))
            throw RangeError(str("compose: unknown colour operation ", op));
          step = {static_cast<ColorOp>(op), next()};
        }
        l.erase.resize(count());
        for (EraseRect& e : l.erase) {
          e.x1 = whole();
          e.y1 = whole();
          e.x2 = whole();
          e.y2 = whole();
          e.value = static_cast<float>(next());
        }
      }
    }
    if (at_ != plan_.size()) throw ShapeError("compose: the plan is longer than its images");
    return out;
  }

 private:
  double next() {
    if (at_ >= plan_.size()) throw ShapeError("compose: the plan is cut short");
    return plan_[at_++];
  }
  int whole() {
    const double v = next();
    if (!(v >= -1e9 && v <= 1e9) || v != static_cast<double>(static_cast<int64_t>(v)))
      throw RangeError(str("compose: sizes and positions must be whole numbers, got ", v));
    return static_cast<int>(v);
  }
  size_t count() {
    const int n = whole();
    if (n < 0 || static_cast<size_t>(n) > plan_.size() - at_)
      throw ShapeError("compose: the plan is cut short");
    return static_cast<size_t>(n);
  }

  const std::vector<double>& plan_;
  size_t at_ = 0;
};

// sourceId() -> a number that no other picture of this process has: workers share devices.
Napi::Value source_id(const Napi::CallbackInfo& info) {
  static std::atomic<int64_t> last{0};
  return Napi::Number::New(info.Env(), static_cast<double>(++last));
}

// [async] compose(sources: {data, width, height, id}[], plan: Float64Array, images, height, width,
//                 mean: Float32Array, std: Float32Array, bgr, dtype, device) -> Promise<Tensor>
Napi::Value compose_js(const Napi::CallbackInfo& info) {
  const Args args(info, "compose");
  return guarded(args, [&]() -> Napi::Value {
    if (!args.value(0).IsArray()) args.fail("sources", "an array", args.value(0));
    const auto list = args.value(0).As<Napi::Array>();
    std::vector<ComposeSource> sources;
    // Pixels that may change (or go to another thread) before the job begins are copied, the others
    // stay where they are.
    std::vector<Tensor> copies;
    std::vector<Napi::Value> keep;
    for (uint32_t i = 0; i < list.Length(); ++i) {
      const Napi::Value item = list.Get(i);
      if (!item.IsObject()) args.fail("sources", "an array of { data, width, height }", item);
      const auto object = item.As<Napi::Object>();
      const Napi::Value data = object.Get("data");
      const auto [bytes, length] = args.bytes(data, "source.data");
      ComposeSource s{bytes, object.Get("width").ToNumber().Int32Value(),
                      object.Get("height").ToNumber().Int32Value(),
                      static_cast<uint64_t>(object.Get("id").ToNumber().Int64Value())};
      if (s.width < 1 || s.height < 1 || size_t(s.width) * s.height * 3 != length)
        throw ShapeError(str("compose: source ", i, " must hold width x height x 3 bytes (",
                             s.width, "x", s.height, "x3), got ", length));
      if (s.id != 0) {
        keep.push_back(data);
      } else {
        copies.push_back(Tensor::empty({static_cast<int64_t>(length)}, DType::u8));
        s.data = copies.back().data<uint8_t>();
        std::memcpy(copies.back().raw(), bytes, length);
      }
      sources.push_back(s);
    }
    const std::vector<double> plan = args.values<double>(1, "plan");
    const int64_t images = args.integer(2, "images"), height = args.integer(3, "height"),
                  width = args.integer(4, "width");
    if (images < 0 || height < 0 || width < 0 || height > 1 << 16 || width > 1 << 16 ||
        images > 1 << 16)
      throw RangeError(str("compose: batch must be sane, got ", images, "x", height, "x", width));
    const auto mean = args.values<float>(5, "mean"), deviation = args.values<float>(6, "std");
    if (mean.size() != 3 || deviation.size() != 3)
      throw ShapeError("compose: mean and std must hold 3 numbers each");
    Normalisation norm;
    std::copy_n(mean.begin(), 3, norm.mean.begin());
    std::copy_n(deviation.begin(), 3, norm.std.begin());
    norm.bgr = args.boolean(7, "bgr");
    const std::string type = args.text(8, "dtype");
    if (type != "f32" && type != "bf16") args.fail("dtype", "'f32' or 'bf16'", args.value(8));
    const DType dtype = type == "bf16" ? DType::bf16 : DType::f32;
    const Device device = args.device(9, "device");
    std::vector<ComposeImage> parsed = PlanReader(plan).read(static_cast<size_t>(images));
    return executor_for(info.Env(), device)
        .post(
            info.Env(), "compose",
            [=, copies = std::move(copies), parsed = std::move(parsed)]() -> Finish {
              Tensor out = Tensor::empty({images, height, width, 3}, dtype, device);
              compose(parsed, sources, norm, out);
              return [out](Napi::Env env) { return to_js(env, out); };
            },
            keep);
  });
}

}  // namespace

void register_image(Napi::Env env, Napi::Object exports) {
  exports.Set("sourceId", Napi::Function::New(env, source_id));
  exports.Set("compose", Napi::Function::New(env, compose_js));
}

}  // namespace mixpl::binding
