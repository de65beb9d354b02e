// What libtorch's own engine does around a leaf, seen through tensors that libtorch shares with us: hooks on tensors
// and on accumulators, and when the buffer of a gradient may be kept instead of copied.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <atomic>
#include <memory>

#include "tests/integration/aten.h"
#include "tests/integration/modes.h"

namespace gf {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class HooksTest : public TransportTest {};

// test_backward_verify_hooks
TEST_P(HooksTest, AHookOfALeafChangesItsGradient) {
  Group group(transport(), {"worker0", "worker1", "worker2"});
  for (size_t i = 1; i < group.size(); ++i) RegisterHandlers(group.server(i));
  const Tensor a = WithGrad(Random({3, 3}, 1)), b = WithGrad(Random({3, 3}, 2));
  std::atomic<int> calls{0};
  ToAten(a).register_hook([&](at::Tensor gradient) {
    ++calls;
    return gradient * 2;
  });
  int wanted_calls = 0;
  for (Mode mode : AllModes()) {
    SCOPED_TRACE(ModeName(mode));
    const Context context = NewContext(group[0]);
    Runner run(group[0], {"worker1", "worker2"}, mode, context);
    // Twice used: the hook sees the sum.
    Backward(context, {Sum(Add(run("aten::mul.Tensor", a, b), a))});
    EXPECT_EQ(calls, ++wanted_calls);
    std::vector<float> expected;
    for (float value : ReadFloats(b)) expected.push_back(2 * (value + 1));
    ExpectClose(ReadFloats(Gradient(context, a)), expected);
    EXPECT_EQ(ReadFloats(Gradient(context, b)), ReadFloats(a));
  }
}

// A hook of the tensor that a call returned sees the gradient on its way out.
TEST_P(HooksTest, AHookOfAReceivedTensorChangesWhatIsSent) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Floats({2}, {2, 3})), b = Floats({2}, {5, 7});
  const Context context = NewContext(group[0]);
  const Tensor product = RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, b);
  ToAten(product).register_hook([](at::Tensor gradient) { return gradient * 10; });
  Backward(context, {Sum(product)});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({50, 70}));
}

class CountingPostHook : public torch::autograd::FunctionPostHook {
 public:
  explicit CountingPostHook(std::atomic<int>* calls) : calls_(calls) {}
  variable_list operator()(const variable_list& outputs, const variable_list&) override {
    ++*calls_;
    return outputs;
  }

 private:
  std::atomic<int>* const calls_;
};

// test_post_hooks
TEST_P(HooksTest, PostHooksOfAccumulatorsRunOnceInAPass) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Random({3, 3}, 1)), b = WithGrad(Random({3, 3}, 2));
  std::atomic<int> calls_a{0}, calls_b{0};
  // Held: an accumulator lives as long as somebody does.
  const auto accumulator_a = torch::autograd::impl::grad_accumulator(ToAten(a));
  const auto accumulator_b = torch::autograd::impl::grad_accumulator(ToAten(b));
  accumulator_a->add_post_hook(std::make_unique<CountingPostHook>(&calls_a));
  accumulator_a->add_post_hook(std::make_unique<CountingPostHook>(&calls_a));
  accumulator_b->add_post_hook(std::make_unique<CountingPostHook>(&calls_b));
  const Context context = NewContext(group[0]);
  const Tensor sum = RemoteOp(group[0], "worker1", In(context), "aten::add.Tensor", a, b);
  const Tensor product = RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", sum, a);
  Backward(context, {Sum(product)});
  EXPECT_EQ(calls_a, 2);
  EXPECT_EQ(calls_b, 1);
}

// Remembers where the gradient lay that it passed on.
struct PassesOn : torch::autograd::Function<PassesOn> {
  static at::Tensor forward(AutogradContext*, const at::Tensor& input) { return input.view_as(input); }
  static variable_list backward(AutogradContext*, variable_list gradients) {
    const at::Tensor& gradient = gradients[0];
    seen = gradient.is_sparse() ? gradient._values().data_ptr() : gradient.data_ptr();
    return {gradient};
  }
  static std::atomic<void*> seen;
};
std::atomic<void*> PassesOn::seen{nullptr};

struct PassesOnToBoth : torch::autograd::Function<PassesOnToBoth> {
  static at::Tensor forward(AutogradContext*, const at::Tensor& a, const at::Tensor& b) { return a + b; }
  static variable_list backward(AutogradContext*, variable_list gradients) {
    PassesOn::seen = gradients[0].data_ptr();
    return {gradients[0], gradients[0]};
  }
};

void* GradientMemory(const Context& context, const Tensor& leaf) {
  const at::Tensor gradient = ToAten(Gradient(context, leaf));
  return gradient.is_sparse() ? gradient._values().data_ptr() : gradient.data_ptr();
}

// test_no_grad_copy
TEST_P(HooksTest, AGradientThatNobodySharesIsKeptAndASharedOneIsCopied) {
  Group group(transport(), {"worker0"});
  const Tensor a = WithGrad(Random({5, 6}, 1)), b = WithGrad(Random({5, 6}, 2));
  {
    const Context context = NewContext(group[0]);
    Backward(context, {FromAten(PassesOn::apply(ToAten(a))[1][0])});
    EXPECT_EQ(GradientMemory(context, a), PassesOn::seen);
  }
  {
    // One gradient for two leaves: one of them may have it, the other needs a copy.
    const Context context = NewContext(group[0]);
    Backward(context, {FromAten(PassesOnToBoth::apply(ToAten(a), ToAten(b))[1][0])});
    void* const of_a = GradientMemory(context, a);
    void* const of_b = GradientMemory(context, b);
    EXPECT_NE(of_a, of_b);
    EXPECT_TRUE(of_a == PassesOn::seen || of_b == PassesOn::seen);
    EXPECT_EQ(ReadFloats(Gradient(context, a)), ReadFloats(Gradient(context, b)));
  }
  {
    // An expanded one, as of a sum, has to become whole.
    const Context context = NewContext(group[0]);
    Backward(context, {FromAten(PassesOn::apply(ToAten(a)).sum())});
    EXPECT_NE(GradientMemory(context, a), PassesOn::seen);
    EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>(30, 1.f));
    EXPECT_TRUE(ToAten(Gradient(context, a)).is_contiguous());
  }
}

// test_no_grad_copy_sparse
TEST_P(HooksTest, ASparseGradientThatNobodySharesIsKept) {
  Group group(transport(), {"worker0"});
  const Tensor weight = WithGrad(Random({10, 3}, 1));
  const at::Tensor rows = at::tensor({1, 2, 4, 5}, at::kLong);
  // Multiplied, so that the values of the gradient are contiguous, which those behind a plain sum are not.
  const at::Tensor ones = at::ones({4, 3});
  auto embed = [&](const at::Tensor& table) {
    return (at::embedding(table, rows, /*padding_idx=*/-1, /*scale_grad_by_freq=*/false, /*sparse=*/true) * ones).sum();
  };
  const Context context = NewContext(group[0]);
  Backward(context, {FromAten(embed(PassesOn::apply(ToAten(weight))))});
  const at::Tensor gradient = ToAten(Gradient(context, weight));
  EXPECT_TRUE(gradient.is_sparse());
  EXPECT_EQ(GradientMemory(context, weight), PassesOn::seen);
  // A second pass adds to it.
  Backward(context, {FromAten(embed(ToAten(weight)))});
  const at::Tensor twice = ToAten(Gradient(context, weight)).to_dense();
  EXPECT_EQ(twice.sum().item<float>(), 24.f);
  EXPECT_EQ(twice[1][0].item<float>(), 2.f);
  EXPECT_EQ(twice[0][0].item<float>(), 0.f);
}

// Sparse gradients cross workers, and add up with dense ones.
TEST_P(HooksTest, ASparseGradientCrossesWorkers) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor weight = WithGrad(Random({10, 3}, 1));
  const Tensor rows = TensorOf<int64_t>({4}, {1, 2, 4, 5});
  const Context context = NewContext(group[0]);
  const Tensor embedded = RemoteOp(group[0], "worker1", In(context), "aten::embedding", weight, rows, -1, false, true);
  Backward(context, {Sum(embedded)}, BackwardOptions().Retain());
  EXPECT_TRUE(ToAten(Gradient(context, weight)).is_sparse());
  EXPECT_EQ(ToAten(Gradient(context, weight)).to_dense()[4][2].item<float>(), 1.f);
  Backward(context, {Sum(Add(Sum(embedded), Sum(weight)))});
  const at::Tensor total = ToAten(Gradient(context, weight)).to_dense();
  EXPECT_EQ(total[4][2].item<float>(), 3.f);
  EXPECT_EQ(total[0][0].item<float>(), 1.f);
}

// test_backward_no_grad_on_tensor: `.grad` of a tensor is not ours to touch.
TEST_P(HooksTest, TheGradFieldOfTensorsIsNeverTouched) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor fresh = WithGrad(Floats({2}, {2, 3})), taken = WithGrad(Floats({2}, {5, 7}));
  ToAten(taken).mutable_grad() = at::full({2}, 100.f);
  const Context context = NewContext(group[0]);
  Backward(context, {Sum(RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", fresh, taken))});
  EXPECT_FALSE(ToAten(fresh).grad().defined());
  EXPECT_EQ(ToAten(taken).grad()[0].item<float>(), 100.f);
  EXPECT_EQ(ReadFloats(Gradient(context, taken)), std::vector<float>({2, 3}));
}

GF_OVER_ALL_WAYS(HooksTest);

}  // namespace
}  // namespace gf
