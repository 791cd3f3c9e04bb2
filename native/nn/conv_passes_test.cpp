// Filters that a norm is folded into, and how long they stay; the bits are those of folding anew.
#include <gtest/gtest.h>

#include <functional>

#include "autograd/tape.h"
#include "core/context.h"
#include "core/cuda/emulation_settings.h"
#include "core/launch.h"
#include "nn/conv.h"
#include "nn/linear.h"
#include "ops/fold_batch_norm/fold_batch_norm.h"
#include "ops/linear/linear.h"
#include "ops/weight_rows/weight_rows.h"
#include "optim/refresh_filters.h"

namespace mixpl {
namespace {

constexpr const char* kNames[] = {"conv.weight", "bn.weight", "bn.bias", "bn.running_mean",
                                  "bn.running_var"};

Tensor noise(const Shape& shape, uint64_t stream) {
  Tensor t = Tensor::empty(shape, DType::f32);
  const Philox random(3, stream);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = 0.5f + random.uniform(i);
  return t;
}

struct Layer {
  Device device;
  DType compute;
  ParameterStore store;
  ConvNorm conv;
  Tensor x;
  int64_t in, out;

  Layer(Device device, DType compute, NormKind norm, int64_t in, int64_t out)
      : device(device), compute(compute), in(in), out(out) {
    const ContextScope scope(context(nullptr));
    ConvSpec spec;
    spec.in = in;
    spec.out = out;
    spec.norm = norm;
    spec.init = init::normal(0.5f);
    conv = ConvNorm(Scope(store, 1), "conv", "bn", spec);
    for (uint64_t i = 0; i < 5; ++i) change(kNames[i], 10 + i);
    x = noise({1, 5, 6, in}, 1).to(device).to(compute);
  }
  Context context(Tape* tape) const {
    Context c;
    c.device = device;
    c.compute = compute;
    c.training = true;
    c.tape = tape;
    return c;
  }
  Tensor value(const char* name) { return store.find(name)->value; }
  void change(const char* name, uint64_t stream) {
    value(name).copy_from(noise(value(name).shape(), stream));
  }
  Tensor forward(Tape* tape, bool anew) {
    const ContextScope scope(context(tape));
    if (!anew) return conv(x);
    Conv2dOptions options;
    options.padding = 1;
    const auto [weight, bias] =
        fold_batch_norm(value(kNames[0]), value(kNames[1]), value(kNames[2]), value(kNames[3]),
                        value(kNames[4]), 1e-5f);
    return conv2d(x, weight, bias, options);
  }
  void backward(Tape& tape, const Tensor& y, uint64_t stream) {
    const ContextScope scope(context(nullptr));
    tape.backward({y}, {noise(y.shape(), stream).to(device).to(compute)});
  }
};

// What three passes gave, with the weights changed before the last; of each output, then gradients.
std::vector<std::vector<float>> passes(Layer layer, bool anew, bool in_turn) {
  std::vector<std::vector<float>> seen;
  const auto keep = [&](const Tensor& t) { seen.push_back(t.to(DType::f32).to_vector<float>()); };
  Tape first, second, third;
  const Tensor a = layer.forward(&first, anew);
  if (in_turn) layer.backward(first, a, 20);
  const Tensor b = layer.forward(&second, anew);
  if (!in_turn) layer.backward(first, a, 20);
  layer.backward(second, b, 21);
  layer.change("conv.weight", 30);
  layer.change("bn.running_var", 31);
  const Tensor plain = layer.forward(nullptr, anew), c = layer.forward(&third, anew);
  layer.backward(third, c, 22);
  for (const Tensor& y : {a, b, plain, c}) keep(y);
  for (const char* name : kNames)
    if (const Tensor grad = layer.value(name).grad(); grad.defined()) keep(grad);
  return seen;
}

TEST(ConvPasses, HaveTheBitsOfFoldingAnew) {
  std::vector<Device> devices{Device::cpu()};
  if (cuda_reason().empty()) devices.push_back(Device::cuda(0));
  for (const Device device : devices)
    for (DType compute : {DType::f32, DType::bf16})
      for (NormKind norm : {NormKind::frozen_bn, NormKind::bn_eval})
        for (int64_t channels : {8, 3})
          for (bool in_turn : {true, false}) {
            SCOPED_TRACE(testing::Message() << device << compute << norm_name(norm) << int(norm)
                                            << " " << channels << in_turn);
            const auto make = [&] { return Layer(device, compute, norm, channels, 16); };
            const auto got = passes(make(), false, in_turn), want = passes(make(), true, in_turn);
            ASSERT_EQ(got.size(), want.size());
            EXPECT_EQ(got.size(), norm == NormKind::bn_eval ? 7u : 5u);
            EXPECT_EQ(got, want);
          }
}

// On the CPU a pass that goes back has filters of its own, which it leaves on its way; those of
// predictions stay until the weights change.
TEST(ConvPasses, OfTheCpuLeaveNoFilters) {
  for (DType compute : {DType::f32, DType::bf16}) {
    SCOPED_TRACE(testing::Message() << compute);
    Layer layer(Device::cpu(), compute, NormKind::bn_eval, 8, 16);
    const Tensor weight = layer.value("conv.weight");
    const auto live = [] { return memory_stats(Device()).live_bytes; };
    const int64_t at_start = live();
    {
      Tape tape;
      const Tensor y = layer.forward(&tape, false);
      EXPECT_GE(live() - at_start, weight.nbytes() + y.nbytes());
      EXPECT_FALSE(layer.store.folds()[0]->values);
      layer.backward(tape, y, 20);
    }
    for (Parameter& p : layer.store.all()) p.value.set_grad(Tensor());
    EXPECT_EQ(live(), at_start);

    layer.forward(nullptr, false);
    layer.forward(nullptr, false);
    const int64_t kept = live() - at_start;
    EXPECT_GE(kept, weight.nbytes());
    FilterTables tables;
    cpu::refresh_filters({weight}, layer.store.folds(), tables);
    EXPECT_EQ(live() - at_start, kept);
    layer.change("bn.bias", 40);
    cpu::refresh_filters({weight}, layer.store.folds(), tables);
    EXPECT_EQ(live(), at_start);
  }
}

// What a product packed of weights that are no longer these goes, too.
TEST(ConvPasses, LeaveNothingOfOldWeights) {
  Tensor weight = noise({32, 16}, 40);
  const auto live = [] { return memory_stats(Device()).live_bytes; };
  const int64_t at_start = live();
  weight.derived<Tensor>("packed", [&] { return Tensor::empty_like(weight); });
  const int64_t kept = live() - at_start;
  EXPECT_GE(kept, weight.nbytes());
  FilterTables tables;
  cpu::refresh_filters({weight}, {}, tables);
  EXPECT_EQ(live() - at_start, kept);
  weight.touch();
  cpu::refresh_filters({weight}, {}, tables);
  EXPECT_EQ(live(), at_start);
}

// Sums that a frozen norm has no use for are not taken.
TEST(ConvPasses, AskForTheBiasOnlyWhereItIsTrained) {
  for (NormKind norm : {NormKind::frozen_bn, NormKind::bn_eval}) {
    Layer layer(Device::cpu(), DType::f32, norm, 8, 16);
    Tape tape;
    const ContextScope scope(layer.context(&tape));
    const auto [weight, bias] =
        fold_batch_norm(layer.value(kNames[0]), layer.value(kNames[1]), layer.value(kNames[2]),
                        layer.value(kNames[3]), layer.value(kNames[4]), 1e-5f);
    EXPECT_TRUE(weight.requires_grad());
    EXPECT_EQ(bias.requires_grad(), norm == NormKind::bn_eval);
  }
}

// On a GPU the first folds and casts in one launch, the others find both.
TEST(ConvPasses, OfAStepFoldAndCastOnce) {
  try {
    cuda::set_emulated_faults({});
  } catch (const DeviceError&) {
    GTEST_SKIP() << "launches are counted on the emulated device";
  }
  Layer layer(Device::cuda(0), DType::bf16, NormKind::bn_eval, 8, 16);
  const auto fails_after = [&](int64_t launches) {
    cuda::EmulatedFaults faults;
    faults.launches_to_fail = launches;
    cuda::set_emulated_faults(faults);
    Tape tape;
    bool failed = false;
    try {
      layer.forward(&tape, false);
    } catch (const DeviceError&) {
      failed = true;
    }
    cuda::set_emulated_faults({});
    return failed;
  };
  EXPECT_TRUE(fails_after(1));
  layer.change("bn.weight", 50);
  EXPECT_FALSE(fails_after(2));
  EXPECT_FALSE(fails_after(1));
  layer.change("bn.weight", 51);
  EXPECT_TRUE(fails_after(1));
  EXPECT_FALSE(fails_after(1));
}

// `prepare` brings everything back to where `run` begins.
int64_t launches_of(const std::function<void()>& prepare, const std::function<void()>& run) {
  for (int64_t n = 0;; ++n) {
    prepare();
    cuda::EmulatedFaults faults;
    faults.launches_to_fail = n;
    cuda::set_emulated_faults(faults);
    bool failed = false;
    try {
      run();
    } catch (const DeviceError&) {
      failed = true;
    }
    cuda::set_emulated_faults({});
    if (!failed) return n;
  }
}

// Behind an update a GPU makes in two launches what the next pass would make layer by layer.
class RefreshedFilters : public ::testing::Test {
 protected:
  static constexpr int kLayers = 3;
  Device device = Device::cpu();
  ParameterStore store;
  std::vector<ConvNorm> convs;
  Linear linear;
  Tensor in_projection;  // read in parts
  FilterTables tables;

  Context context(DType compute, Tape* tape) const {
    Context c;
    c.device = device;
    c.compute = compute;
    c.training = true;
    c.tape = tape;
    return c;
  }
  void build(DType compute) {
    if (!cuda_reason().empty()) GTEST_SKIP() << cuda_reason();
    device = Device::cuda(0);
    const ContextScope scope(context(compute, nullptr));
    for (int i = 0; i < kLayers; ++i) {
      ConvSpec spec;
      spec.in = i == 0 ? 3 : 16;  // nothing of the first is whole chunks
      spec.out = 16;
      spec.norm = i == 1 ? NormKind::none : NormKind::bn_eval;
      spec.init = init::normal(0.5f);
      convs.emplace_back(Scope(store, 1).child(str(i)), "conv", "bn", spec);
    }
    linear = Linear(Scope(store, 1), "linear", 16, 24, init::normal(0.5f));
    in_projection = Scope(store, 1).weight("projection", {48, 24}, init::normal(0.5f));
    change(1);
  }
  void change(uint64_t stream) {
    for (Parameter& p : store.all()) p.value.copy_from(noise(p.value.shape(), stream++));
  }
  std::vector<Tensor> weights() {
    std::vector<Tensor> all;
    for (const Parameter& p : store.all())
      if (p.kind == ParameterKind::weight) all.push_back(p.value);
    return all;
  }
  void refresh() { MIXPL_DISPATCH(device, refresh_filters, weights(), store.folds(), tables); }
  Tensor forward(DType compute, Tape* tape) {
    const ContextScope scope(context(compute, tape));
    Tensor x = noise({2, 5, 6, 3}, 9).to(device).to(compute);
    for (const ConvNorm& conv : convs) x = conv(x);
    x = linear(x);
    return mixpl::linear(x, weight_rows(in_projection, 16, 32), {}, {});
  }
  std::vector<float> values(DType compute, Tape* tape) {
    return forward(compute, tape).to(DType::f32).to_vector<float>();
  }
};

TEST_F(RefreshedFilters, HaveTheBitsOfNewOnes) {
  for (DType compute : {DType::f32, DType::bf16}) {
    SCOPED_TRACE(testing::Message() << compute);
    store = {};
    convs.clear();
    build(compute);
    if (IsSkipped()) return;
    for (bool recorded : {false, true}) {
      Tape tape;
      values(compute, recorded ? &tape : nullptr);
      tape.clear();
      for (uint64_t round : {20, 40, 60}) {
        change(round);
        refresh();
        const auto got = values(compute, nullptr);
        for (const Tensor& weight : weights()) weight.impl()->derived.clear();
        for (const auto& fold : store.folds()) fold->values.reset();
        EXPECT_EQ(got, values(compute, nullptr));
      }
    }
  }
}

// A graph that is alive reads what it was made with.
TEST_F(RefreshedFilters, LeaveToAGraphWhatIsItsOwn) {
  build(DType::bf16);
  if (IsSkipped()) return;
  Tape tape;
  const Tensor y = forward(DType::bf16, &tape);
  const auto folded = store.folds()[1]->values->first;
  const auto before = folded.to_vector<float>();
  change(30);
  refresh();
  EXPECT_EQ(folded.to_vector<float>(), before);
  EXPECT_FALSE(store.folds()[1]->values);
  tape.clear();
}

TEST_F(RefreshedFilters, OfUnusedLayersAreDropped) {
  build(DType::bf16);
  if (IsSkipped()) return;
  forward(DType::bf16, nullptr);
  change(30);
  refresh();
  EXPECT_TRUE(store.folds()[1]->values);
  change(40);
  refresh();
  EXPECT_FALSE(store.folds()[1]->values);
}

TEST_F(RefreshedFilters, TakeTwoLaunches) {
  try {
    cuda::set_emulated_faults({});
  } catch (const DeviceError&) {
    GTEST_SKIP() << "launches are counted on the emulated device";
  }
  build(DType::bf16);
  const auto pass = [&] { forward(DType::bf16, nullptr); };
  const int64_t known = launches_of(pass, pass);
  uint64_t round = 30;
  const auto changed = [&](bool refreshed) {
    return launches_of(pass, [&] {
      change(round++);
      if (refreshed) refresh();
      pass();
    });
  };
  EXPECT_EQ(changed(false), known + 6);  // two folds, of which one is cast; four other casts
  EXPECT_EQ(changed(true), known + 3);   // the first layer's channels are padded
}

// A refresh that fails leaves nothing that could pass for up to date.
TEST_F(RefreshedFilters, ForgetWhatFailed) {
  try {
    cuda::set_emulated_faults({});
  } catch (const DeviceError&) {
    GTEST_SKIP() << "faults are the emulated device's";
  }
  build(DType::bf16);
  for (int64_t launches : {0, 1}) {
    forward(DType::bf16, nullptr);
    change(30 + launches);
    cuda::EmulatedFaults faults;
    faults.launches_to_fail = launches;
    cuda::set_emulated_faults(faults);
    EXPECT_THROW(refresh(), DeviceError);
    cuda::set_emulated_faults({});
    const auto got = values(DType::bf16, nullptr);
    for (const Tensor& weight : weights()) weight.impl()->derived.clear();
    for (const auto& fold : store.folds()) fold->values.reset();
    EXPECT_EQ(got, values(DType::bf16, nullptr));
  }
}

}  // namespace
}  // namespace mixpl
