// Gradients of linear layers that share their input and follow each other: added to what the input
// has gathered, and masked by the ReLU behind it, against plain sums.
#include <gtest/gtest.h>

#include <cmath>

#include "autograd/tape.h"
#include "core/cuda/runtime.h"
#include "core/philox.h"
#include "ops/linear/linear.h"

namespace mixpl {
namespace {

using Values = std::vector<double>;

Tensor noise(const Shape& shape, uint64_t seed, Device device, DType type) {
  Tensor t = Tensor::empty(shape, DType::f32);
  const Philox random{seed, 0};
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = random.uniform(i) - 0.5f;
  return t.to(type).to(device);
}
Values values_of(const Tensor& t) {
  const std::vector<float> all = t.to(DType::f32).to_vector<float>();
  return {all.begin(), all.end()};
}
// a [m, k] b [k, n], either read as its transpose.
Values product(const Values& a, const Values& b, int64_t m, int64_t k, int64_t n, bool turn_a,
               bool turn_b) {
  Values out(m * n, 0.0);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j)
      for (int64_t l = 0; l < k; ++l)
        out[i * n + j] += a[turn_a ? l * m + i : i * k + l] * b[turn_b ? j * k + l : l * n + j];
  return out;
}
void expect_near(const char* what, const Tensor& got, const Values& want, double relative) {
  const Values values = values_of(got);
  double largest = 0;
  for (double v : want) largest = std::max(largest, std::abs(v));
  ASSERT_EQ(values.size(), want.size()) << what;
  for (size_t i = 0; i < want.size(); ++i)
    ASSERT_NEAR(values[i], want[i], relative * largest) << what << " " << i;
}

struct Case {
  int64_t rows, c, hidden, out;
};

// x -> hidden (ReLU) -> two layers; x has gathered a gradient of its own before.
void check(const Case& s, Device device, DType type) {
  Tape tape;
  Context context;
  context.device = device;
  context.compute = type;
  context.tape = &tape;
  const ContextScope scope(context);
  const auto weight = [&](const Shape& shape, uint64_t seed) {
    return noise(shape, seed, device, DType::f32).set_requires_grad(true);
  };
  Tensor x = noise({2, s.rows, s.c}, 1, device, type);
  x.set_requires_grad(true);
  const Tensor before = noise(x.shape(), 2, device, type);
  const Values gathered = values_of(before);
  x.set_grad(before.clone());
  const Tensor w = weight({s.hidden, s.c}, 3), bias = weight({s.hidden}, 4);
  const Tensor w1 = weight({s.out, s.hidden}, 5), w2 = weight({s.out, s.hidden}, 6);
  LinearOptions relu;
  relu.relu = true;
  const Tensor h = linear(x, w, bias, relu);
  const Tensor y1 = linear(h, w1, {}), y2 = linear(h, w2, {});
  const Tensor d1 = noise(y1.shape(), 7, device, type), d2 = noise(y1.shape(), 8, device, type);
  const Values hidden = values_of(h);
  tape.backward({y1, y2}, {d1, d2});

  const int64_t rows = 2 * s.rows;
  // What arithmetic in bf16 cuts off the factors.
  const auto cut = [&](const Tensor& t) { return values_of(t.to(type)); };
  const Values g1 = values_of(d1), g2 = values_of(d2);
  const Values of_1 = product(g1, cut(w1), rows, s.out, s.hidden, false, false);
  const Values of_2 = product(g2, cut(w2), rows, s.out, s.hidden, false, false);
  Values dh(hidden.size()), dbias(s.hidden, 0.0);
  for (size_t i = 0; i < dh.size(); ++i) {
    dh[i] = hidden[i] > 0 ? of_1[i] + of_2[i] : 0;
    dbias[i % s.hidden] += dh[i];
  }
  Values dx = product(dh, cut(w), rows, s.hidden, s.c, false, false);
  for (size_t i = 0; i < dx.size(); ++i) dx[i] += gathered[i];
  // Results and what passes between the layers are rounded to 8 bits, twice where they gather.
  const double relative = type == DType::bf16 ? 2e-2 : 1e-5;
  expect_near("dx", x.grad(), dx, relative);
  expect_near("dw", w.grad(), product(dh, values_of(x), s.hidden, rows, s.c, true, false),
              relative);
  expect_near("dbias", bias.grad(), dbias, relative);
  expect_near("dw1", w1.grad(), product(g1, hidden, s.out, rows, s.hidden, true, false), relative);
}

TEST(LinearGradientsCuda, AreAddedAndMasked) {
  std::vector<Device> devices{Device::cpu()};
  if (cuda_reason().empty()) devices.push_back(Device::cuda(0));
  for (const Device device : devices)
    for (const DType type : {DType::f32, DType::bf16})
      for (const Case& s : {Case{5, 16, 24, 8}, Case{3, 6, 9, 5}, Case{70, 64, 136, 4}}) {
        SCOPED_TRACE(testing::Message() << device << type << " " << s.c << "->" << s.hidden);
        check(s, device, type);
      }
}

}  // namespace
}  // namespace mixpl
