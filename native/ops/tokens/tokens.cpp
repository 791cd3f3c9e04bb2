#include "ops/tokens/tokens.h"

#include <numeric>

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"
#include "ops/reshape/reshape.h"

namespace mixpl {

Tensor concat_tokens(const std::vector<Tensor>& parts) {
  const Check check("concatTokens");
  if (parts.empty()) throw ShapeError("concatTokens: needs 1 tensor or more, got 0");
  const Tensor& model = parts[0];
  check.floating("parts", model);
  std::vector<int64_t> counts;
  for (const Tensor& part : parts) {
    check.dtype("parts", part, model.dtype());
    if (part.rank() != 3 && part.rank() != 4)
      throw ShapeError(
          str("concatTokens: parts must be [N, T, C] or [N, H, W, C], got ", part.shape()));
    check.size("parts", part, 0, model.size(0), "images of the first part");
    check.size("parts", part, part.rank() - 1, model.size(-1), "channels of the first part");
    check.same_device("parts", part, model);
    counts.push_back(part.rank() == 3 ? part.size(1) : part.size(1) * part.size(2));
  }
  const Shape shape{model.size(0), std::accumulate(counts.begin(), counts.end(), int64_t{0}),
                    model.size(-1)};
  if (parts.size() == 1) return reshape(model, shape);
  Tensor whole = Tensor::empty(shape, model.dtype(), model.device());
  std::vector<TokenSpan> spans;
  int64_t first = 0;
  for (size_t i = 0; i < parts.size(); first += counts[i++])
    spans.push_back({parts[i], first, counts[i]});
  MIXPL_DISPATCH(model.device(), write_spans, spans, whole);
  record(whole, parts, [parts, counts](const Tensor& dwhole) {
    Gradients grads(parts.size());
    std::vector<TokenSpan> spans;
    int64_t first = 0;
    for (size_t i = 0; i < parts.size(); first += counts[i++]) {
      if (!parts[i].requires_grad()) continue;
      grads[i] = Tensor::empty_like(parts[i]);
      spans.push_back({grads[i], first, counts[i]});
    }
    MIXPL_DISPATCH(dwhole.device(), read_spans, dwhole, spans);
    return grads;
  });
  if (is_traced()) note("concatTokens", parts, {whole});
  return whole;
}

Tensor take_tokens(const Tensor& x, int64_t first, int64_t count) {
  const Check check("takeTokens");
  check.floating("x", x);
  check.rank("x", x, 3, "N, T, C");
  const int64_t tokens = x.size(1);
  check.at_least("count", static_cast<double>(count), 1);
  check.at_least("first", static_cast<double>(first), 0);
  if (first > tokens - count)
    throw RangeError(str("takeTokens: first + count must be <= ", tokens,
                         " (the tokens of x), got ", first, " + ", count));
  if (count == tokens) return x;
  Tensor y = Tensor::empty({x.size(0), count, x.size(2)}, x.dtype(), x.device());
  MIXPL_DISPATCH(x.device(), read_spans, x, std::vector<TokenSpan>{{y, first, count}});
  record(y, {x}, [first, count, shape = x.shape()](const Tensor& dy) {
    Tensor dx = Tensor::empty(shape, dy.dtype(), dy.device());
    const int64_t end = first + count;
    const std::vector<TokenSpan> spans{
        {{}, 0, first}, {dy, first, count}, {{}, end, shape[1] - end}};
    MIXPL_DISPATCH(dy.device(), write_spans, spans, dx);
    return Gradients{dx};
  });
  if (is_traced()) note("takeTokens", {x}, {y}, {{"first", static_cast<double>(first)}});
  return y;
}

Tensor mask_tokens(const Tensor& x, const Tensor& mask) {
  const Check check("maskTokens");
  check.floating("x", x);
  check.rank("x", x, 3, "N, T, C");
  if (!mask.defined()) return x;
  check.dtype("mask", mask, DType::u8);
  check.shape("mask", mask, drop_last(x.shape()), "one number for each token of x");
  check.same_device("mask", mask, x);
  Tensor y = Tensor::empty_like(x);
  MIXPL_DISPATCH(x.device(), mask_tokens, x, mask, y);
  record(y, {x}, [mask](const Tensor& dy) {
    Tensor dx = Tensor::empty_like(dy);
    MIXPL_DISPATCH(dy.device(), mask_tokens, dy, mask, dx);
    return Gradients{dx};
  });
  if (is_traced()) note("maskTokens", {x, mask}, {y});
  return y;
}

Tensor add_level_rows(const Tensor& x, const Tensor& rows, const std::vector<int64_t>& counts) {
  const Check check("addLevelRows");
  check.floating("x", x);
  check.rank("x", x, 3, "N, T, C");
  check.dtype("rows", rows, DType::f32);
  check.shape("rows", rows, {static_cast<int64_t>(counts.size()), x.size(2)},
              "one for each level, of the channels of x");
  check.same_device("rows", rows, x);
  if (counts.size() > kMostLevels)
    throw ShapeError(str("addLevelRows: counts must be of at most ", kMostLevels, " levels, got ",
                         counts.size()));
  int64_t sum = 0;
  for (int64_t count : counts) {
    if (count < 0)
      throw ShapeError(str("addLevelRows: counts must be numbers of tokens, got ", count));
    sum += count;
  }
  if (sum != x.size(1))
    throw ShapeError(
        str("addLevelRows: counts must sum to ", x.size(1), " (the tokens of x), got ", sum));
  const Pyramid levels(counts);
  Tensor y = Tensor::empty_like(x);
  MIXPL_DISPATCH(x.device(), add_level_rows_forward, x, rows, levels, y);
  record(y, {x, rows}, [rows, levels](const Tensor& dy) {
    Gradients grads{dy, {}};
    if (rows.requires_grad()) {
      grads[1] = Tensor::empty_like(rows);
      MIXPL_DISPATCH(dy.device(), add_level_rows_backward, dy, levels, grads[1]);
    }
    return grads;
  });
  return y;
}

namespace {

void needs(const char* op, const std::vector<Tensor>& in, size_t count) {
  if (in.size() != count) throw ShapeError(str(op, ": needs ", count, " tensors, got ", in.size()));
}

// concatTokens: the parts. takeTokens: x; { first, count }. maskTokens: x, maybe mask.
// addLevelRows: x, rows; { counts }.
const bool registered =
    register_op("concatTokens",
                [](const std::vector<Tensor>& in, const Options&) {
                  return std::vector<Tensor>{concat_tokens(in)};
                }) &&
    register_op("takeTokens",
                [](const std::vector<Tensor>& in, const Options& o) {
                  needs("takeTokens", in, 1);
                  return std::vector<Tensor>{
                      take_tokens(in[0], o.integer("first", 0), o.integer("count", 1))};
                }) &&
    register_op("maskTokens",
                [](const std::vector<Tensor>& in, const Options&) {
                  if (in.size() != 1) needs("maskTokens", in, 2);
                  return std::vector<Tensor>{mask_tokens(in[0], in.size() == 1 ? Tensor() : in[1])};
                }) &&
    register_op("addLevelRows", [](const std::vector<Tensor>& in, const Options& o) {
      needs("addLevelRows", in, 2);
      std::vector<int64_t> counts;
      for (double count : o.numbers("counts", {})) {
        Check("addLevelRows").in_range("counts", count, 0, 1 << 30);
        counts.push_back(static_cast<int64_t>(count));
      }
      return std::vector<Tensor>{add_level_rows(in[0], in[1], counts)};
    });

}  // namespace

}  // namespace mixpl
