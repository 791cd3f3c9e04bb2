// Rows of empty places on a device, against the rows that count on the host.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "autograd/tape.h"
#include "core/philox.h"
#include "ops/batch_norm/batch_norm.h"

namespace mixpl {
namespace {

constexpr int64_t kPixels = 3;

Tensor normals(const Shape& shape, uint64_t seed, float shift) {
  Tensor t = Tensor::empty(shape, DType::f32);
  const Philox random{seed, 0};
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = shift + random.normal(i);
  return t;
}

// The rows of x, [R, pixels, C], where `owners` has places: x's own, or `fill`.
Tensor spread(const Tensor& x, const std::vector<int32_t>& owners, float fill) {
  const int64_t places = static_cast<int64_t>(owners.size());
  Tensor out = Tensor::full({places, x.size(1), x.size(2)}, fill, DType::f32);
  const int64_t each = out.numel() / places;
  int64_t row = 0;
  for (size_t i = 0; i < owners.size(); ++i)
    if (owners[i] >= 0)
      std::memcpy(out.data<float>() + static_cast<int64_t>(i) * each,
                  x.data<float>() + each * row++, static_cast<size_t>(each) * sizeof(float));
  return out;
}

struct Results {
  Tensor y, dx, dgamma, dbeta, mean, variance;  // f32, on the host
};

Results run(const Tensor& x_in, const Tensor& dout, const Tensor& owners, DType dtype,
            Device device) {
  Tape tape;
  Context context;
  context.device = device;
  context.training = true;
  context.tape = &tape;
  ContextScope scope(context);
  const Shape channels{x_in.size(-1)};
  Tensor x = x_in.to(dtype).to(device), gamma = normals(channels, 3, 1).to(device),
         beta = normals(channels, 4, 0).to(device), mean = normals(channels, 5, 0).to(device),
         variance = Tensor::full(channels, 2, DType::f32, device);
  for (Tensor* t : {&x, &gamma, &beta}) t->set_requires_grad(true);
  BatchNormOptions options;
  options.relu = true;
  const Tensor y = batch_norm(x, gamma, beta, mean, variance, options, {}, owners);
  tape.backward({y}, {dout.to(dtype).to(device)});
  const auto host = [](const Tensor& t) { return t.to(Device::cpu()).to(DType::f32); };
  return {host(y),           host(x.grad()), host(gamma.grad()),
          host(beta.grad()), host(mean),     host(variance)};
}

void expect_near(const Tensor& found, const Tensor& wanted, float tolerance, const char* what) {
  ASSERT_EQ(found.shape(), wanted.shape()) << what;
  for (int64_t i = 0; i < wanted.numel(); ++i)
    ASSERT_NEAR(found.data<float>()[i], wanted.data<float>()[i],
                tolerance * (1 + std::abs(wanted.data<float>()[i])))
        << what << " " << i;
}

TEST(BatchNormCuda, LeavesEmptyPlacesOut) {
  if (const std::string why = cuda_reason(); !why.empty()) GTEST_SKIP() << why;
  const std::vector<std::vector<int32_t>> lists{
      {0, 0, 0, -1, -1, 1, 1, -1, -1, -1},
      {-1, -1, -1, 1, 1, -1, 2, 2, 2, 2},  // the first place is one of them
      {0, 0, 1, 1}};
  for (const auto& owners : lists)
    for (int64_t channels : {8, 3})
      for (DType dtype : {DType::f32, DType::bf16}) {
        SCOPED_TRACE(testing::Message() << owners.size() << " " << channels << " " << dtype);
        const int64_t rows =
            std::count_if(owners.begin(), owners.end(), [](auto n) { return n >= 0; });
        const Shape shape{rows, kPixels, channels};
        const Tensor x = normals(shape, 1, 5), dout = normals(shape, 2, 0);
        const Device gpu = Device::cuda(0);
        const Tensor on_gpu =
            Tensor::from(owners, {static_cast<int64_t>(owners.size())}, Device::cpu()).to(gpu);
        const Results want = run(x, dout, {}, dtype, Device::cpu());
        // What an empty place holds is no matter, but that sums are taken around the first one.
        const float held = owners[0] < 0 ? 0 : -40;
        const Results got =
            run(spread(x, owners, held), spread(dout, owners, 0), on_gpu, dtype, gpu);
        const float tolerance = dtype == DType::f32 ? 1e-5f : 1e-2f;
        expect_near(got.mean, want.mean, 1e-5f, "mean");
        expect_near(got.variance, want.variance, 1e-5f, "variance");
        expect_near(got.dgamma, want.dgamma, tolerance, "dgamma");
        expect_near(got.dbeta, want.dbeta, tolerance, "dbeta");
        expect_near(got.dx, spread(want.dx, owners, 0), tolerance, "dx");
        const int64_t each = kPixels * channels;
        int64_t row = 0;
        for (size_t i = 0; i < owners.size(); ++i)
          for (int64_t k = 0; k < each; ++k) {
            const float y = got.y.data<float>()[static_cast<int64_t>(i) * each + k];
            if (owners[i] < 0)
              ASSERT_TRUE(std::isfinite(y));
            else
              ASSERT_NEAR(y, want.y.data<float>()[row++], 10 * tolerance);
          }
      }
}

TEST(BatchNormCuda, OfNothingChangesNothing) {
  if (const std::string why = cuda_reason(); !why.empty()) GTEST_SKIP() << why;
  const Shape shape{4, kPixels, 8};
  const Device gpu = Device::cuda(0);
  const Tensor owners = Tensor::from(std::vector<int32_t>(4, -1), {4}, Device::cpu()).to(gpu);
  const Results got =
      run(normals(shape, 1, 5), Tensor::zeros(shape, DType::f32), owners, DType::f32, gpu);
  expect_near(got.mean, normals({8}, 5, 0), 0, "mean");
  expect_near(got.variance, Tensor::full({8}, 2, DType::f32), 0, "variance");
  for (const Tensor& zero : {got.dx, got.dgamma, got.dbeta})
    expect_near(zero, Tensor::zeros(zero.shape(), DType::f32), 0, "gradient");
  for (int64_t i = 0; i < got.y.numel(); ++i) ASSERT_TRUE(std::isfinite(got.y.data<float>()[i]));
}

TEST(BatchNorm, HasNoEmptyPlacesOnTheCpu) {
  const Tensor owners = Tensor::from(std::vector<int32_t>{0, -1}, {2}, Device::cpu());
  Tensor mean = Tensor::zeros({1}, DType::f32), variance = mean.clone();
  EXPECT_THROW(
      batch_norm(Tensor::zeros({2, 1}, DType::f32), mean, mean, mean, variance, {}, {}, owners),
      DeviceError);
}

}  // namespace
}  // namespace mixpl
