// Passes for the gradients of chosen inputs only: what does not lead to them neither runs nor is sent, on any worker.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "tests/integration/modes.h"

namespace gf {
namespace {

using ::testing::HasSubstr;

class ChosenInputsTest : public TransportTest {};

// Counts the gradients that come to a tensor.
class Counter {
 public:
  explicit Counter(const Tensor& tensor) {
    RegisterHook(tensor, [count = count_](const Tensor&) {
      ++*count;
      return Tensor();
    });
  }
  int count() const { return *count_; }

 private:
  std::shared_ptr<std::atomic<int>> count_ = std::make_shared<std::atomic<int>>(0);
};

TEST_P(ChosenInputsTest, OnlyTheChosenLeafGetsAGradient) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Floats({2}, {2, 3})), b = WithGrad(Floats({2}, {5, 7}));
  const Counter b_gradients(b);
  for (Mode mode : AllModes()) {
    SCOPED_TRACE(ModeName(mode));
    if (mode == Mode::kHandler) RegisterHandlers(group.server(1));
    const Context context = NewContext(group[0]);
    Runner run(group[0], {"worker1"}, mode, context);
    Backward(context, {Sum(run("aten::mul.Tensor", a, b))}, BackwardOptions().Inputs({a}));
    EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({5, 7}));
    EXPECT_FALSE(HasGradient(context, b));
    EXPECT_EQ(GradientCount(context), 1u);
  }
  EXPECT_EQ(b_gradients.count(), 0);
}

// The parameter of worker1 lies beside the way to `a`, the one of worker2 on a branch of its own.
TEST_P(ChosenInputsTest, NothingThatDoesNotLeadToThemRunsOnOtherWorkers) {
  Group group(transport(), {"worker0", "worker1", "worker2"});
  const Tensor a = WithGrad(Floats({2}, {2, 3}));
  const Tensor p1 = WithGrad(Floats({2}, {5, 7})), p2 = WithGrad(Floats({2}, {11, 13}));
  for (int i = 1; i <= 2; ++i) {
    group.server(i).On("scale", [p = i == 1 ? p1 : p2](const Request& request) {
      return ListOf(Mul(TensorAt(Arguments(request), 0), p));
    });
  }
  const Counter p1_gradients(p1), p2_gradients(p2);
  const Context context = NewContext(group[0]);
  auto scale = [&](const std::string& worker, const Tensor& x) {
    return TensorAt(CallWorker(group[0], worker, "scale", ListOf(x), In(context)), 0);
  };
  const Tensor main = scale("worker1", a);
  const Tensor beside = scale("worker2", Floats({2}, {1, 1}));
  const Counter sent_beside(beside);
  const Tensor loss = Sum(Add(main, beside));
  Backward(context, {loss}, BackwardOptions().Inputs({a}).Retain());
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({5, 7}));
  EXPECT_EQ(GradientCount(context), 1u);
  EXPECT_EQ(GradientCount(FindContext(group[1], gf_context_id(context))), 0u);
  EXPECT_EQ(p1_gradients.count() + p2_gradients.count() + sent_beside.count(), 0);
  // A pass for all leaves adds to it.
  Backward(context, {loss});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({10, 14}));
  EXPECT_EQ(ReadFloats(Gradient(FindContext(group[1], gf_context_id(context)), p1)), std::vector<float>({2, 3}));
  EXPECT_EQ(p2_gradients.count(), 1);
}

// There and back over three workers, several times; the way to an input may leave and come back.
TEST_P(ChosenInputsTest, InputsAreFoundOverManyHops) {
  Group group(transport(), {"worker0", "worker1", "worker2"});
  const Tensor a = WithGrad(Floats({2}, {2, 3})), b = WithGrad(Floats({2}, {5, 7}));
  const Context context = NewContext(group[0]);
  Tensor x = a, y = b;
  for (int i = 0; i < 6; ++i) {
    const std::string worker = i % 2 == 0 ? "worker1" : "worker2";
    x = RemoteOp(group[0], worker, In(context), "aten::add.Tensor", x, a);
    y = RemoteOp(group[0], worker, In(context), "aten::add.Tensor", y, x);
  }
  const Tensor loss = Sum(Mul(x, y));
  Backward(context, {loss}, BackwardOptions().Inputs({b}).Retain());
  EXPECT_EQ(ReadFloats(Gradient(context, b)), ReadFloats(x));
  EXPECT_EQ(GradientCount(context), 1u);
  Backward(context, {loss}, BackwardOptions().Inputs({a, a}).Retain());  // named twice counts once
  // x = 7a, y = b + (2 + ... + 7)a
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({7 * 5 + 2 * 7 * 27 * 2, 7 * 7 + 2 * 7 * 27 * 3}));
}

TEST_P(ChosenInputsTest, TensorsThatAreNoLeavesMayBeChosen) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Floats({2}, {2, 3}));
  const Context context = NewContext(group[0]);
  const Tensor local = Mul(a, a);
  const Tensor received = RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", local, local);
  const Tensor root = Sum(received);
  const Counter a_gradients(a);
  Backward(context, {root}, BackwardOptions().Inputs({local, received, root}));
  EXPECT_EQ(ReadFloats(Gradient(context, local)), std::vector<float>({8, 18}));
  EXPECT_EQ(ReadFloats(Gradient(context, received)), std::vector<float>({1, 1}));
  EXPECT_EQ(ReadFloats(Gradient(context, root)), std::vector<float>({1}));
  EXPECT_FALSE(HasGradient(context, a));
  EXPECT_EQ(a_gradients.count(), 0);
}

TEST_P(ChosenInputsTest, TheHooksOfAChosenLeafRunOnce) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Floats({2}, {2, 3}));
  const Counter a_gradients(a);
  RegisterHook(a, [](const Tensor& gradient) { return Mul(gradient, Floats({}, {10})); });
  const Context context = NewContext(group[0]);
  const Tensor product = RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, a);
  Backward(context, {Sum(Add(product, a))}, BackwardOptions().Inputs({a}));
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({50, 70}));
  EXPECT_EQ(a_gradients.count(), 1);
}

TEST_P(ChosenInputsTest, AnInputThatTheRootsDoNotDependOnGetsNone) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Floats({2}, {2, 3})), other = WithGrad(Floats({2}, {1, 1}));
  const Context context = NewContext(group[0]);
  const Tensor loss = Sum(RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, a));
  Backward(context, {loss}, BackwardOptions().Inputs({other}).Retain());
  EXPECT_EQ(GradientCount(context), 0u);
  // Without retain_graph what did not run can still run later.
  Backward(context, {loss}, BackwardOptions().Inputs({other}));
  Backward(context, {loss});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({4, 6}));
}

TEST_P(ChosenInputsTest, WrongInputsAreRefused) {
  Group group(transport(), {"worker0"});
  const Tensor a = WithGrad(Floats({2}, {2, 3})), constant = Floats({2}, {1, 1});
  const Context context = NewContext(group[0]);
  const Tensor loss = Sum(a);
  auto refusal = [&](std::vector<Tensor> inputs) {
    return ErrorOf([&] { Backward(context, {loss}, BackwardOptions().Inputs(std::move(inputs))); });
  };
  const Error no_grad = refusal({a, constant});
  EXPECT_EQ(no_grad.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(no_grad.message, HasSubstr("input 1 does not require grad"));
  const Error null = refusal({Tensor()});
  EXPECT_EQ(null.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(null.message, HasSubstr("input 0 is not defined"));
  gf_tensor* const root = loss.get();
  gf_backward none{};
  none.struct_size = sizeof(none);
  none.roots = &root;
  none.root_count = 1;
  none.inputs = &root;
  EXPECT_THAT(ErrorOf([&] { Call(gf_backward_sync, context, &none); }).message, HasSubstr("chooses no input"));
  none.inputs = nullptr;
  none.input_count = 1;
  EXPECT_THAT(ErrorOf([&] { Call(gf_backward_sync, context, &none); }).message, HasSubstr("inputs is NULL"));
  Backward(context, {loss}, BackwardOptions().Inputs({a}));
  EXPECT_TRUE(HasGradient(context, a));
}

GF_OVER_ALL_WAYS(ChosenInputsTest);

}  // namespace
}  // namespace gf
