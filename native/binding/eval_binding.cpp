// Evaluation of a whole data set: typed arrays in, tables out; runs on the CPU executor.
#include <napi.h>

#include "binding/addon.h"
#include "binding/convert.h"
#include "eval/coco_evaluation.h"
#include "eval/voc_evaluation.h"

namespace mixpl::binding {
namespace {

eval::GroundTruths ground_truths_of(const Args& args, size_t i, bool coco) {
  const Napi::Object object = args.object(i, "groundTruth");
  eval::GroundTruths gt;
  gt.boxes = args.values_of<double>(object.Get("boxes"), "groundTruth.boxes");
  gt.images = args.values_of<int32_t>(object.Get("images"), "groundTruth.images");
  gt.labels = args.values_of<int32_t>(object.Get("labels"), "groundTruth.labels");
  gt.ignore = args.values_of<uint8_t>(object.Get("ignore"), "groundTruth.ignore");
  if (coco) {
    gt.areas = args.values_of<double>(object.Get("areas"), "groundTruth.areas");
    gt.ids = args.values_of<double>(object.Get("ids"), "groundTruth.ids");
  }
  return gt;
}

eval::DetectedBoxes detections_of(const Args& args, size_t i) {
  const Napi::Object object = args.object(i, "detections");
  return {args.values_of<double>(object.Get("boxes"), "detections.boxes"),
          args.values_of<double>(object.Get("scores"), "detections.scores"),
          args.values_of<int32_t>(object.Get("images"), "detections.images"),
          args.values_of<int32_t>(object.Get("labels"), "detections.labels")};
}

// [async] evaluateCoco(groundTruth, detections, { numImages, numClasses, iouThresholds,
//   recallPoints, areaRanges (flat pairs), maxDetections }) ->
//   { precision, scores, recall, numGroundTruths }
Napi::Value evaluate_coco_js(const Napi::CallbackInfo& info) {
  const Args args(info, "evaluateCoco");
  return guarded(args, [&]() -> Napi::Value {
    auto gt = ground_truths_of(args, 0, true);
    auto dt = detections_of(args, 1);
    const Napi::Object o = args.object(2, "options");
    const auto number = [&](const char* name) {
      if (!o.Get(name).IsNumber()) args.fail(name, "a number", o.Get(name));
      return o.Get(name).As<Napi::Number>().Int64Value();
    };
    const int64_t num_images = number("numImages"), num_classes = number("numClasses");
    eval::CocoOptions options;
    options.iou_thresholds = args.values_of<double>(o.Get("iouThresholds"), "iouThresholds");
    options.recall_points = args.values_of<double>(o.Get("recallPoints"), "recallPoints");
    options.max_detections = args.values_of<int32_t>(o.Get("maxDetections"), "maxDetections");
    const auto ranges = args.values_of<double>(o.Get("areaRanges"), "areaRanges");
    for (size_t i = 0; i + 1 < ranges.size(); i += 2)
      options.area_ranges.push_back({ranges[i], ranges[i + 1]});
    return executor_for(info.Env(), Device::cpu())
        .post(info.Env(), "evaluateCoco",
              [num_images, num_classes, gt = std::move(gt), dt = std::move(dt), options]() {
                auto tables = std::make_shared<eval::CocoTables>(
                    eval::evaluate_coco(num_images, num_classes, gt, dt, options));
                return [tables](Napi::Env env) -> Napi::Value {
                  Napi::Object out = Napi::Object::New(env);
                  out.Set("precision", to_js(env, tables->precision));
                  out.Set("scores", to_js(env, tables->scores));
                  out.Set("recall", to_js(env, tables->recall));
                  out.Set("numGroundTruths", to_js(env, tables->num_ground_truths));
                  return out;
                };
              });
  });
}

// [async] evaluateVoc(groundTruth, detections, { numImages, numClasses, iouThresholds,
//   interpolation, legacyCoordinates }) -> { averagePrecision, recall, numGroundTruths,
//   numDetections }
Napi::Value evaluate_voc_js(const Napi::CallbackInfo& info) {
  const Args args(info, "evaluateVoc");
  return guarded(args, [&]() -> Napi::Value {
    auto gt = ground_truths_of(args, 0, false);
    auto dt = detections_of(args, 1);
    const Napi::Object o = args.object(2, "options");
    const auto number = [&](const char* name) {
      if (!o.Get(name).IsNumber()) args.fail(name, "a number", o.Get(name));
      return o.Get(name).As<Napi::Number>().Int64Value();
    };
    const int64_t num_images = number("numImages"), num_classes = number("numClasses");
    eval::VocOptions options;
    options.iou_thresholds = args.values_of<double>(o.Get("iouThresholds"), "iouThresholds");
    const Napi::Value interpolation = o.Get("interpolation");
    const std::string name =
        interpolation.IsString() ? interpolation.As<Napi::String>().Utf8Value() : "";
    if (name != "11point" && name != "area")
      args.fail("interpolation", "'11point' or 'area'", interpolation);
    options.interpolation = name == "area" ? eval::VocOptions::Interpolation::area
                                           : eval::VocOptions::Interpolation::eleven_point;
    options.legacy_coordinates = o.Get("legacyCoordinates").ToBoolean();
    return executor_for(info.Env(), Device::cpu())
        .post(info.Env(), "evaluateVoc",
              [num_images, num_classes, gt = std::move(gt), dt = std::move(dt), options]() {
                auto tables = std::make_shared<eval::VocTables>(
                    eval::evaluate_voc(num_images, num_classes, gt, dt, options));
                return [tables](Napi::Env env) -> Napi::Value {
                  Napi::Object out = Napi::Object::New(env);
                  out.Set("averagePrecision", to_js(env, tables->average_precision));
                  out.Set("recall", to_js(env, tables->recall));
                  out.Set("numGroundTruths", to_js(env, tables->num_ground_truths));
                  out.Set("numDetections", to_js(env, tables->num_detections));
                  return out;
                };
              });
  });
}

}  // namespace

void register_eval(Napi::Env env, Napi::Object exports) {
  exports.Set("evaluateCoco", Napi::Function::New(env, evaluate_coco_js));
  exports.Set("evaluateVoc", Napi::Function::New(env, evaluate_voc_js));
}

}  // namespace mixpl::binding
