// Optimizers: a step with the gradients of a context, here and on the worker where the parameters live.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/integration/modes.h"

namespace gf {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class OptimizerTest : public TransportTest {};

Optimizer NewOptimizer(const std::string& spec, const std::vector<Tensor>& parameters) {
  const List list = NewList();
  for (const Tensor& parameter : parameters) Push(list, parameter);
  Optimizer optimizer;
  Call(gf_optimizer_new, spec.data(), spec.size(), list, optimizer.out());
  return optimizer;
}

void Step(const Optimizer& optimizer, const Context& context) { Call(gf_optimizer_step, optimizer, context); }

// test_dist_optim, for the parameters here
TEST_P(OptimizerTest, AStepFollowsTheGradientsOfTheContext) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor w = WithGrad(Floats({2}, {1, 2})), x = Floats({2}, {3, 5});
  const Optimizer sgd = NewOptimizer("sgd = { lr = 0.1 }", {w});
  for (int step = 1; step <= 3; ++step) {
    const Context context = NewContext(group[0]);
    Backward(context, {Sum(RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", w, x))});
    Step(sgd, context);
    const float steps = static_cast<float>(step);
    ExpectClose(ReadFloats(w), {1 - 0.3f * steps, 2 - 0.5f * steps});
    // The gradients are the context's and stay.
    EXPECT_EQ(ReadFloats(Gradient(context, w)), std::vector<float>({3, 5}));
  }
}

// B11, test_dist_optim_none_grads. PyTorch: a parameter without a gradient is stepped again with its last one.
TEST_P(OptimizerTest, AParameterWithoutAGradientInTheContextIsLeftAlone) {
  Group group(transport(), {"worker0", "worker1"});
  for (const char* spec :
       {"sgd = { lr = 0.1, momentum = 0.9, weight_decay = 0.1 }", "adam = { lr = 0.1 }",
        "adamw = { lr = 0.1, weight_decay = 0.1 }", "rmsprop = { lr = 0.1 }", "adagrad = { lr = 0.1 }"}) {
    SCOPED_TRACE(spec);
    const Tensor used = WithGrad(Floats({2}, {1, 2})), idle = WithGrad(Floats({2}, {7, 11}));
    const Optimizer optimizer = NewOptimizer(spec, {used, idle});
    const Context both = NewContext(group[0]);
    Backward(both, {Sum(RemoteOp(group[0], "worker1", In(both), "aten::mul.Tensor", used, idle))});
    Step(optimizer, both);
    const auto used_before = ReadFloats(used), idle_before = ReadFloats(idle);
    EXPECT_NE(idle_before, std::vector<float>({7, 11}));
    // In this context the second has none; a gradient of the first context is not applied again.
    const Context one = NewContext(group[0]);
    Backward(one, {Sum(RemoteOp(group[0], "worker1", In(one), "aten::mul.Tensor", used, used))});
    Step(optimizer, one);
    EXPECT_NE(ReadFloats(used), used_before);
    EXPECT_EQ(ReadFloats(idle), idle_before);
  }
}

TEST_P(OptimizerTest, ContextsWithoutAnyGradientChangeNothing) {
  Group group(transport(), {"worker0"});
  const Tensor w = WithGrad(Floats({2}, {1, 2}));
  const Optimizer adam = NewOptimizer("adam = { lr = 0.1 }", {w});
  const Context context = NewContext(group[0]);
  Step(adam, context);
  EXPECT_EQ(ReadFloats(w), std::vector<float>({1, 2}));
}

// Parameters of a peer are stepped there, by a handler, with the gradients of the same context.
TEST_P(OptimizerTest, APeerStepsItsOwnParameters) {
  Group group(transport(), {"trainer", "server"});
  const Tensor w = WithGrad(Floats({2}, {1, 2}));
  const Optimizer sgd = NewOptimizer("sgd = { lr = 0.1 }", {w});
  gf_worker* server = group[1];
  group.server(1).On("forward", [&](const Request& request) {
    return CallOperator("aten::mul.Tensor", ListOf(w, TensorAt(Arguments(request), 0)), gf_request_grad(request));
  });
  group.server(1).On("step", [&](const Request& request) {
    Step(sgd, FindContext(server, IntAt(Arguments(request), 0)));
    return NewList();
  });
  for (int step = 1; step <= 3; ++step) {
    const Context context = NewContext(group[0]);
    const List product = CallWorker(group[0], "server", "forward", ListOf(Floats({2}, {3, 5})), In(context));
    Backward(context, {Sum(TensorAt(product, 0))});
    CallWorker(group[0], "server", "step", ListOf(gf_context_id(context)));
    const float steps = static_cast<float>(step);
    ExpectClose(ReadFloats(w), {1 - 0.3f * steps, 2 - 0.5f * steps});
  }
}

// test_dist_optim_exception_on_constructor
TEST_P(OptimizerTest, WhatCannotBeOptimizedIsRefused) {
  Group group(transport(), {"worker0"});
  const Tensor w = WithGrad(Floats({2}, {1, 2})), constant = Floats({2}, {1, 2});
  const Tensor result = Mul(w, w);
  auto error_of = [&](const std::string& spec, const std::vector<Tensor>& parameters) {
    const Error error = ErrorOf([&] { NewOptimizer(spec, parameters); });
    EXPECT_EQ(error.code, GF_INVALID_ARGUMENT) << spec;
    return error.message;
  };
  EXPECT_THAT(error_of("sdg = { lr = 0.1 }", {w}), AllOf(HasSubstr("sdg"), HasSubstr("sgd")));
  EXPECT_THAT(error_of("sgd = { lr = 0.1, momentun = 0.9 }", {w}), AllOf(HasSubstr("momentun"), HasSubstr("momentum")));
  EXPECT_THAT(error_of("sgd = { }", {w}), HasSubstr("lr"));
  EXPECT_THAT(error_of("sgd = { lr = \"fast\" }", {w}), HasSubstr("lr"));
  EXPECT_NE(error_of("sgd = {", {w}), "");
  EXPECT_THAT(error_of("sgd = { lr = 0.1 }", {w, constant}), HasSubstr("1"));
  EXPECT_THAT(error_of("sgd = { lr = 0.1 }", {result}), HasSubstr("leaf"));
  const Optimizer sgd = NewOptimizer("sgd = { lr = 0.1 }", {w});
  const Context context = NewContext(group[0]);
  Release(context);
  EXPECT_EQ(ErrorOf([&] { Step(sgd, context); }).code, GF_NOT_FOUND);
}

GF_OVER_ALL_WAYS(OptimizerTest);

}  // namespace
}  // namespace gf
