#include "detect/queries.h"

#include <algorithm>
#include <limits>

#include "core/check.h"
#include "core/context.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

// Indices of what is chosen are 31 bits of a key on a GPU.
constexpr int64_t kMostItems = std::numeric_limits<int32_t>::max();

void check_sizes(const Check& check, const Tensor& sizes, int64_t images, const Tensor& other) {
  check.dtype("sizes", sizes, DType::f32);
  check.shape("sizes", sizes, {images, 2}, "height and width of each image");
  check.same_device("sizes", sizes, other);
}

}  // namespace

Tensor best_tokens(const Tensor& logits, int64_t count, int64_t by) {
  const Check check("bestTokens");
  check.floating("logits", logits);
  check.rank("logits", logits, 3, "N, S, C");
  const int64_t images = logits.size(0), tokens = logits.size(1), classes = logits.size(2);
  check.at_least("count", static_cast<double>(count), 0);
  if (classes < 1)
    throw ShapeError(str("bestTokens: logits must have a class, got ", logits.shape()));
  if (by >= classes)
    throw RangeError(str("bestTokens: by must be a class below ", classes, ", got ", by));
  if (count > tokens)
    throw ShapeError(
        str("bestTokens: logits must have at least ", count, " tokens, got ", logits.shape()));
  if (images * tokens > kMostItems)
    throw ShapeError(str("bestTokens: tokens must be below 2^31, got ", logits.shape()));
  Tensor rows = Tensor::empty({images * count}, DType::i32, logits.device());
  if (rows.numel() > 0)
    MIXPL_DISPATCH(logits.device(), best_tokens, logits, count, std::max<int64_t>(by, -1), rows);
  if (is_traced()) note("bestTokens", {logits}, {rows}, {{"by", static_cast<double>(by)}});
  return rows;
}

DenoisingQueries denoising_queries(const Truth& truth, const Tensor& sizes, int64_t classes,
                                   const DenoisingOptions& options, const Philox& random) {
  const Check check("denoisingQueries");
  check_sizes(check, sizes, truth.images(), truth.boxes);
  check.in_range("classes", static_cast<double>(classes), 1, kMostItems);
  check.in_range("labelNoise", options.label_noise, 0, 2);
  check.at_least("boxNoise", options.box_noise, 0);
  // Images and groups are fields of 16 bits in what the noise is drawn by.
  check.in_range("queries", static_cast<double>(options.queries), 0, 65535);
  check.in_range("images", static_cast<double>(truth.images()), 0, 65535);

  const int64_t images = truth.images(), most = truth.most();
  const Device device = truth.device();
  DenoisingQueries out;
  out.groups = most > 0 ? std::max<int64_t>(options.queries / most, 1) : 1;
  out.group_size = 2 * most;
  const auto numbers = [&](DType type) {
    return Tensor::empty({images, out.count()}, type, device);
  };
  const auto boxes = [&] { return Tensor::empty({images, out.count(), 4}, DType::f32, device); };
  out.labels = numbers(DType::i32);
  out.references = boxes();
  out.targets = {numbers(DType::i32), boxes(), numbers(DType::f32), numbers(DType::i32),
                 out.groups * truth.total()};
  if (out.labels.numel() > 0)
    MIXPL_DISPATCH(device, denoising_queries, truth, sizes, classes, options, random, out);
  return out;
}

Tensor denoising_mask(const DenoisingQueries& denoising, int64_t queries, Device device) {
  const Check check("denoisingMask");
  check.at_least("queries", static_cast<double>(queries), 0);
  if (denoising.count() == 0) return {};
  const int64_t all = denoising.count() + queries;
  Tensor mask = Tensor::empty({1, all, all}, DType::u8, device);
  MIXPL_DISPATCH(device, denoising_mask, denoising, mask);
  return mask;
}

PendingDetections detect_queries(const Tensor& logits, const Tensor& boxes, const Tensor& sizes,
                                 int64_t max_per_image) {
  const Check check("detectQueries");
  check.floating("logits", logits);
  check.rank("logits", logits, 3, "N, Q, C");
  const int64_t images = logits.size(0), queries = logits.size(1), classes = logits.size(2);
  check.dtype("boxes", boxes, DType::f32);
  check.shape("boxes", boxes, {images, queries, 4}, "a box for each query");
  check.same_device("boxes", boxes, logits);
  check_sizes(check, sizes, images, logits);
  check.at_least("maxPerImage", static_cast<double>(max_per_image), 1);
  if (classes >= 1 << 24 || queries * classes > kMostItems)
    throw ShapeError(str("detectQueries: logits must have below 2^24 classes and 2^31 pairs, got ",
                         logits.shape()));
  const int64_t most = std::min(max_per_image, queries * classes);
  if (is_traced())
    note("queryDetections", {logits, boxes}, {}, {{"most", static_cast<double>(most)}});
  if (images == 0 || most == 0) return std::vector<Detections>(images);
  return MIXPL_DISPATCH(logits.device(), detect_queries, logits, boxes, sizes, most);
}

namespace {

void needs(const char* op, const std::vector<Tensor>& in, size_t count) {
  if (in.size() != count) throw ShapeError(str(op, ": needs ", count, " tensors, got ", in.size()));
}

// logits; { count, by }.
const bool registered_tokens =
    register_op("bestTokens", [](const std::vector<Tensor>& in, const Options& o) {
      needs("bestTokens", in, 1);
      return std::vector<Tensor>{best_tokens(in[0], o.integer("count", 1), o.integer("by", -1))};
    });

// sizes, then boxes and labels of each image; { classes, labelNoise, boxNoise, queries, seed,
// stream }. Outputs: groups and group size (i32 [2]), labels, references, then of the targets
// labels, boxes, weights, objects, positives.
const bool registered_denoising =
    register_op("denoisingQueries", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() % 2 != 1)
        throw ShapeError(str("denoisingQueries: needs sizes, then boxes and labels per image, got ",
                             in.size(), " tensors"));
      DenoisingOptions options;
      options.label_noise = static_cast<float>(o.number("labelNoise", options.label_noise));
      options.box_noise = static_cast<float>(o.number("boxNoise", options.box_noise));
      options.queries = o.integer("queries", options.queries);
      const Philox random{static_cast<uint64_t>(o.integer("seed", 0)),
                          static_cast<uint64_t>(o.integer("stream", 0))};
      Check("denoisingQueries").defined("sizes", in[0]);
      std::vector<Tensor> boxes, labels;
      for (size_t i = 1; i < in.size(); i += 2) {
        boxes.push_back(in[i]);
        labels.push_back(in[i + 1]);
      }
      const DenoisingQueries d =
          denoising_queries(join_truth("denoisingQueries", boxes, labels, in[0].device()), in[0],
                            o.integer("classes", 1), options, random);
      const std::vector<int32_t> layout{static_cast<int32_t>(d.groups),
                                        static_cast<int32_t>(d.group_size)};
      const Tensor positives =
          Tensor::full({}, static_cast<float>(d.targets.positives), DType::f32);
      return std::vector<Tensor>{Tensor::from(layout, {2}), d.labels,        d.references,
                                 d.targets.labels,          d.targets.boxes, d.targets.weights,
                                 d.targets.objects,         positives};
    });

// Nothing; { groups, groupSize, queries }. Output: the mask, none without denoising queries.
const bool registered_mask =
    register_op("denoisingMask", [](const std::vector<Tensor>& in, const Options& o) {
      needs("denoisingMask", in, 0);
      DenoisingQueries d;
      d.groups = o.integer("groups", 1);
      d.group_size = o.integer("groupSize", 0);
      const Check check("denoisingMask");
      check.at_least("groups", static_cast<double>(d.groups), 0);
      check.at_least("groupSize", static_cast<double>(d.group_size), 0);
      const Tensor mask = denoising_mask(d, o.integer("queries", 0), Context::current().device);
      return mask.defined() ? std::vector<Tensor>{mask} : std::vector<Tensor>{};
    });

// logits, boxes, sizes; { maxPerImage }. Outputs: boxes, scores, labels of every image in turn.
const bool registered_detections =
    register_op("detectQueries", [](const std::vector<Tensor>& in, const Options& o) {
      needs("detectQueries", in, 3);
      std::vector<Tensor> out;
      for (const Detections& d :
           detect_queries(in[0], in[1], in[2], o.integer("maxPerImage", 100)).get()) {
        const int64_t n = static_cast<int64_t>(d.scores.size());
        out.push_back(Tensor::from(d.boxes, {n, 4}));
        out.push_back(Tensor::from(d.scores, {n}));
        out.push_back(Tensor::from(d.labels, {n}));
      }
      return out;
    });

}  // namespace

}  // namespace mixpl
