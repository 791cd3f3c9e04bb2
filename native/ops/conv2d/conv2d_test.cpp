#include <gtest/gtest.h>

#include <cmath>

#include "autograd/tape.h"
#include "core/allocator.h"
#include "core/normals_test.h"
#include "ops/conv2d/conv2d.h"

namespace mixpl {
namespace {

// Largest difference over largest value.
double difference(const Tensor& got, const Tensor& want) {
  const Tensor a = got.to(DType::f32), b = want.to(DType::f32);
  double worst = 0, largest = 1e-30;
  for (int64_t i = 0; i < a.numel(); ++i) {
    const double d = std::abs(a.data<float>()[i] - b.data<float>()[i]);
    worst = std::isnan(d) ? INFINITY : std::max(worst, d);
    largest = std::max<double>(largest, std::abs(b.data<float>()[i]));
  }
  return worst / largest;
}

struct Way {
  int kernel, stride, padding, groups = 1;
};

// All three passes in bf16 agree with f32: on pictures of [2, h, w, c], with k filters.
void expect_as_in_f32(const Way& way, int64_t h, int64_t w, int64_t c, int64_t k) {
  SCOPED_TRACE(str(h, "x", w, ", ", c, " to ", k, " channels, ", way.kernel, "x", way.kernel,
                   " of stride ", way.stride, ", ", way.groups, " groups"));
  Conv2dOptions o;
  o.stride = way.stride, o.padding = way.padding, o.groups = way.groups;
  const auto side = [&](int64_t n) { return (n + 2 * o.padding - way.kernel) / o.stride + 1; };
  const Shape in{2, h, w, c}, out{2, side(h), side(w), k};
  // Numbers that bf16 has: the two types differ in sums and in the last rounding.
  const Tensor x = normals(in, DType::bf16, 1), dy = normals(out, DType::bf16, 2);
  const Tensor weight =
      normals({k, way.kernel, way.kernel, c / way.groups}, DType::bf16, 3).to(DType::f32);
  Tensor y[2], dx[2], dweight[2];
  for (const bool wide : {false, true}) {
    const DType type = wide ? DType::f32 : DType::bf16;
    y[wide] = Tensor::empty(out, type);
    dx[wide] = Tensor::empty(in, type);
    dweight[wide] = Tensor::empty(weight.shape(), DType::f32);
    cpu::conv2d_forward(x.to(type), weight, {}, {}, o, y[wide]);
    cpu::conv2d_backward_data(dy.to(type), weight, o, dx[wide]);
    cpu::conv2d_backward_weight(x.to(type), dy.to(type), o, dweight[wide]);
  }
  EXPECT_LT(difference(y[0], y[1]), 0.01);
  EXPECT_LT(difference(dx[0], dx[1]), 0.01);
  EXPECT_LT(difference(dweight[0], dweight[1]), 0.01);
}

TEST(Conv2dCpu, FiltersInBf16GiveTheSameBits) {
  for (const Way way : {Way{1, 1, 0}, Way{1, 2, 0}, Way{3, 2, 1}, Way{3, 1, 1}, Way{3, 1, 1, 4}})
    for (const auto& [c, k] : {std::pair{16, 32}, {36, 20}, {60, 64}}) {
      SCOPED_TRACE(str(way.kernel, "x", way.kernel, " of stride ", way.stride, ", ", way.groups,
                       " groups, ", c, " to ", k, " channels"));
      Conv2dOptions o;
      o.stride = way.stride, o.padding = way.padding, o.groups = way.groups;
      const Tensor narrow = normals({k, way.kernel, way.kernel, c / way.groups}, DType::bf16, 3);
      const Tensor x = normals({2, 9, 11, c}, DType::bf16, 1).set_requires_grad(true);
      const Tensor dy = normals(conv2d_shape(x.shape(), narrow.shape(), o), DType::bf16, 2);
      std::vector<uint16_t> y[2], dx[2];
      std::vector<float> dweight[2];
      for (const bool wide : {false, true}) {
        const Tensor weight =
            (wide ? narrow.to(DType::f32) : narrow.clone()).set_requires_grad(true);
        Tensor input = x.detach().set_requires_grad(true);
        Tape tape;
        Context context;
        context.tape = &tape;
        const ContextScope scope(context);
        const Tensor out = conv2d(input, weight, {}, o);
        tape.backward({out}, {dy});
        EXPECT_EQ(weight.grad().dtype(), DType::f32);
        const auto bits = [](const Tensor& t) {
          const auto* values = static_cast<const uint16_t*>(t.raw());
          return std::vector<uint16_t>(values, values + t.numel());
        };
        y[wide] = bits(out), dx[wide] = bits(input.grad());
        dweight[wide] = weight.grad().to_vector<float>();
      }
      if (filter_type({}, way.kernel, o, DType::bf16) == DType::bf16) {
        EXPECT_EQ(y[0], y[1]);
        EXPECT_EQ(dx[0], dx[1]);
      }
      EXPECT_EQ(dweight[0], dweight[1]);
    }
}

TEST(Conv2dCpu, ManyPixelsAreMultipliedInParts) {
  // Of pixels that oneDNN would want 20 MB for in bf16, and of odd channels, which are copied.
  for (const auto& [c, k] : {std::pair{64, 256}, {33, 256}}) {
    const Tensor x = normals({2, 100, 101, c}, DType::bf16, 1);
    const Tensor weight = normals({k, 1, 1, c}, DType::bf16, 2).to(DType::f32);
    const Tensor bias = normals({k}, DType::f32, 3),
                 residual = normals({2, 100, 101, k}, DType::bf16, 4);
    Conv2dOptions o;
    o.relu = true;
    const Tensor all = conv2d(x, weight, bias, o, residual);
    const Tensor wide = conv2d(x.to(DType::f32), weight, bias, o, residual.to(DType::f32));
    EXPECT_LT(difference(all, wide), 0.01);
  }
}

// Weights' gradients above 16 MiB are made some filters at a time.
TEST(Conv2dCpu, LargeWeightGradientsAreMadeInParts) {
  const int64_t c = 8192, k = 700, pixels = 48;
  for (const DType type : {DType::f32, DType::bf16})
    for (const bool add : {false, true}) {
      SCOPED_TRACE(testing::Message() << type << (add ? ", added" : ""));
      const Tensor x = normals({1, 6, 8, c}, type, 1), dy = normals({1, 6, 8, k}, type, 2);
      const Tensor before = normals({k, 1, 1, c}, DType::f32, 3);
      Tensor dweight = before.clone();
      cpu::conv2d_backward_weight(x, dy, {}, dweight, add);
      const Tensor from = x.to(DType::f32), by = dy.to(DType::f32);
      for (int64_t f = 0; f < k; f += f % 64 == 63 ? 1 : 21)
        for (int64_t i = f % 16; i < c; i += 61) {
          double sum = add ? before.data<float>()[f * c + i] : 0;
          for (int64_t p = 0; p < pixels; ++p)
            sum += double(from.data<float>()[p * c + i]) * by.data<float>()[p * k + f];
          ASSERT_NEAR(dweight.data<float>()[f * c + i], sum, 1e-4) << f << ", " << i;
        }
    }
}

// A pass adds to what x has gathered by image, where all of that is above 16 MiB.
TEST(Conv2dCpu, LargeDataGradientsAreAddedByImage) {
  const Shape in{3, 76, 74, 256};
  const Tensor dy = normals({3, 76, 74, 8}, DType::f32, 1), before = normals(in, DType::f32, 2);
  const Tensor weight = normals({8, 1, 1, 256}, DType::f32, 3);
  Tensor own = Tensor::empty(in, DType::f32), sum = before.clone(), want = before.clone();
  ASSERT_GT(sum.nbytes(), 16 << 20);
  cpu::conv2d_backward_data(dy, weight, {}, own);
  cpu::conv2d_backward_data(dy, weight, {}, sum, true);
  for (int64_t i = 0; i < want.numel(); ++i) want.data<float>()[i] += own.data<float>()[i];
  EXPECT_LT(difference(sum, want), 1e-6);
}

// Of filters that a pass packs the next layer's take the place.
TEST(Conv2dCpu, PackedFiltersLeaveWithTheirLayer) {
  const Tensor weight = normals({512, 1, 1, 512}, DType::f32, 1).set_requires_grad(true);
  Tensor x = normals({1, 16, 16, 512}, DType::f32, 2).set_requires_grad(true);
  const auto live = [] { return memory_stats(Device()).live_bytes; };
  const int64_t at_start = live();
  Tape tape;
  Context context;
  context.tape = &tape;
  const ContextScope scope(context);
  const Tensor y = conv2d(x, weight, Tensor(), {});
  EXPECT_LT(live() - at_start, y.nbytes() + weight.nbytes() / 2);
  tape.backward({y}, {normals(y.shape(), DType::f32, 3)});
  EXPECT_LT(live() - at_start, 2 * y.nbytes() + weight.nbytes() * 3 / 2);
}

// oneDNN's kernels for bf16 take channels in pairs: the last pixel's last one must not meet what
// lies behind the tensor, which may be NaN (and is with MIXPL_CHECK_MEMORY=1).
TEST(Conv2dCpu, AnyNumberOfChannelsInBf16) {
  const std::vector<std::pair<int64_t, int64_t>> channels{{1, 1},    {3, 16},  {5, 9},    {15, 15},
                                                          {17, 33},  {32, 7},  {36, 81},  {63, 65},
                                                          {64, 819}, {91, 64}, {256, 91}, {319, 2}};
  for (const Way way : {Way{1, 1, 0}, Way{3, 1, 1}, Way{1, 2, 0}, Way{3, 2, 1}, Way{7, 2, 3}})
    for (const auto& [c, k] : channels) expect_as_in_f32(way, 4, 5, c, k);
}

TEST(Conv2dCpu, OddChannelsOfGroupsInBf16) {
  for (const Way way : {Way{1, 1, 0, 2}, Way{3, 1, 1, 2}, Way{3, 2, 1, 2}, Way{3, 1, 1, 6}})
    for (const auto& [c, k] : std::vector<std::pair<int64_t, int64_t>>{
             {6, 6}, {6, 18}, {18, 30}, {30, 66}, {66, 30}, {42, 102}})
      expect_as_in_f32(way, 9, 7, c, k);
}

// Where weight gradients are oneDNN's: many pixels.
TEST(Conv2dCpu, OddChannelsOfLargeMapsInBf16) {
  for (const Way way : {Way{1, 1, 0}, Way{3, 1, 1}, Way{3, 2, 1}, Way{7, 2, 3}, Way{1, 2, 0}})
    for (const auto& [c, k] :
         std::vector<std::pair<int64_t, int64_t>>{{3, 64}, {17, 32}, {33, 16}, {19, 17}, {32, 33}})
      expect_as_in_f32(way, 40, 41, c, k);
}

}  // namespace
}  // namespace mixpl
