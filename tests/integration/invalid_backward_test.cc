// Passes that cannot be run: each with an error that says which root and why, and nothing left behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/integration/modes.h"

namespace gf {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class InvalidBackwardTest : public TransportTest {
 protected:
  Error ErrorOfRoots(const Context& context, const std::vector<Tensor>& roots, const BackwardOptions& options = {}) {
    const Error error = ErrorOf([&] { Backward(context, roots, options); });
    // The asynchronous form refuses the same, and delivers nothing.
    const Error started = ErrorOf([&] { StartBackward(context, roots, options); });
    EXPECT_EQ(started.code, error.code);
    EXPECT_EQ(started.message, error.message);
    EXPECT_EQ(gf_live_objects(GF_LIVE_PASSES), 0);
    return error;
  }
};

// test_backward_invalid_args
TEST_P(InvalidBackwardTest, RootsThatCannotBe) {
  Group group(transport(), {"worker0", "worker1"});
  const Context context = NewContext(group[0]);
  const Tensor a = WithGrad(Random({3, 3}, 1)), constant = Random({3, 3}, 2);
  const Tensor product = RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, constant);

  const Error none = ErrorOfRoots(context, {});
  EXPECT_EQ(none.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(none.message, HasSubstr("no roots"));
  EXPECT_EQ(none.operation, "backward");

  const Error no_grad = ErrorOfRoots(context, {Sum(product), Sum(constant)});
  EXPECT_EQ(no_grad.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(no_grad.message, AllOf(HasSubstr("root 1"), HasSubstr("does not require grad")));

  const Error not_scalar = ErrorOfRoots(context, {product});
  EXPECT_EQ(not_scalar.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(not_scalar.message, AllOf(HasSubstr("root 0"), HasSubstr("9 elements"), HasSubstr("seed")));

  const Error wrong_shape = ErrorOfRoots(context, {product}, BackwardOptions().Seeds({Random({3}, 3)}));
  EXPECT_EQ(wrong_shape.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(wrong_shape.message, AllOf(HasSubstr("root 0"), HasSubstr("seed gradient")));

  const Error wrong_dtype = ErrorOfRoots(context, {product}, BackwardOptions().Seeds({RandomDoubles({3, 3}, 3)}));
  EXPECT_EQ(wrong_dtype.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(wrong_dtype.message, AllOf(HasSubstr("root 0"), HasSubstr("seed gradient")));

  const Error wrong_device = ErrorOfRoots(context, {product}, BackwardOptions().Seeds({MetaTensor({3, 3})}));
  EXPECT_EQ(wrong_device.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(wrong_device.message, AllOf(HasSubstr("root 0"), HasSubstr("meta")));

  const Error null_root = ErrorOfRoots(context, {Tensor()});
  EXPECT_EQ(null_root.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(null_root.message, HasSubstr("root 0"));

  // None of that harmed the context.
  Backward(context, {Sum(product)});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), ReadFloats(constant));
}

// test_backward_without_context
TEST_P(InvalidBackwardTest, AContextThatIsUnknownOrReleased) {
  Group group(transport(), {"worker0", "worker1"});
  const Error unknown = ErrorOf([&] { FindContext(group[0], 100); });
  EXPECT_EQ(unknown.code, GF_NOT_FOUND);
  EXPECT_THAT(unknown.message, HasSubstr("context with id 100"));

  const Tensor a = WithGrad(Random({3, 3}, 1));
  const Context context = NewContext(group[0]);
  const Tensor loss = Sum(RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, a));
  const std::string id = std::to_string(gf_context_id(context));
  Release(context);
  const Error released = ErrorOfRoots(context, {loss});
  EXPECT_EQ(released.code, GF_NOT_FOUND);
  EXPECT_THAT(released.message, HasSubstr(id));
}

// A pass of one context cannot begin on another worker's tensors: there the send functions are unknown.
TEST_P(InvalidBackwardTest, ARootOfAnotherContext) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Random({3, 3}, 1));
  const Context context = NewContext(group[0]), other = NewContext(group[0]);
  const Tensor loss = Sum(RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, a));
  (void)RemoteOp(group[0], "worker1", In(other), "aten::mul.Tensor", a, a);
  const Error error = ErrorOf([&] { Backward(other, {loss}); });
  EXPECT_EQ(error.code, GF_PASS_ABORTED);
  EXPECT_EQ(error.worker, "worker1");
  EXPECT_THAT(error.description, HasSubstr("has no send function"));
  EXPECT_FALSE(HasGradient(other, a));
  Backward(context, {loss});
  EXPECT_TRUE(HasGradient(context, a));
}

TEST_P(InvalidBackwardTest, BackwardThroughAFreedGraphOnAPeer) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Random({3, 3}, 1));
  const Context context = NewContext(group[0]);
  const Tensor sum = RemoteOp(group[0], "worker1", In(context), "aten::sum", a);
  Backward(context, {sum});
  const Error error = ErrorOf([&] { Backward(context, {sum}); });
  EXPECT_EQ(error.code, GF_PASS_ABORTED);
  EXPECT_EQ(error.worker, "worker1");
  EXPECT_THAT(error.description, AllOf(HasSubstr("retain_graph"), HasSubstr("worker1")));
  // A fresh graph in the same context works.
  Backward(context, {RemoteOp(group[0], "worker1", In(context), "aten::sum", a)});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>(9, 2.f));
}

TEST_P(InvalidBackwardTest, BackwardThroughAFreedGraphHere) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Random({3, 3}, 1));
  const Context context = NewContext(group[0]);
  const Tensor remote = RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, a);
  const Tensor loss = Sum(Mul(remote, remote));
  Backward(context, {loss});
  const Error error = ErrorOf([&] { Backward(context, {loss}); });
  EXPECT_EQ(error.code, GF_PASS_ABORTED);
  EXPECT_THAT(error.description, HasSubstr("retain_graph"));
}

// The node of an operator without a derivative fails when it runs; here two hops away.
TEST_P(InvalidBackwardTest, ANodeThatFailsNamesItsWorkerAndOperator) {
  Group group(transport(), {"worker0", "worker1", "worker2"});
  for (size_t i = 0; i < group.size(); ++i) RegisterHandlers(group.server(i));
  group.server(1).On("bad", [worker = group[1]](const Request& request) {
    const List arguments = Arguments(request);
    return CallWorker(worker, "worker2", "aten::nextafter", arguments, CallOptions().Parent(request));
  });
  const Tensor a = WithGrad(Random({3, 3}, 1)), b = Random({3, 3}, 2);
  const Context context = NewContext(group[0]);
  const Tensor bad = TensorAt(CallWorker(group[0], "worker1", "bad", ListOf(a, b), In(context)), 0);
  for (int attempt = 0; attempt < 2; ++attempt) {
    const Error error = ErrorOf([&] { Backward(context, {Sum(bad)}, BackwardOptions().Retain()); });
    EXPECT_EQ(error.code, GF_PASS_ABORTED);
    EXPECT_EQ(error.worker, "worker2");
    EXPECT_THAT(error.operation, HasSubstr("Nextafter"));
    EXPECT_EQ(error.domain, "autograd");
    EXPECT_EQ(error.root().worker, "worker2");
    EXPECT_THAT(error.root().message, HasSubstr("nextafter"));
    EXPECT_FALSE(HasGradient(context, a));
  }
  // test_multiple_backward_with_errors: afterwards the context is as good as new.
  const Tensor good = RemoteOp(group[0], "worker1", In(context), "aten::add.Tensor", a, b);
  Backward(context, {Sum(good)});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>(9, 1.f));
  for (size_t i = 0; i < group.size(); ++i) EXPECT_TRUE(Eventually([&] { return Info(group[i])["passes"] == 0; }));
}

TEST_P(InvalidBackwardTest, ManyFailedPassesLeaveNothingAndThenGoodOnesWork) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Random({3, 3}, 1)), b = Random({3, 3}, 2);
  const Context context = NewContext(group[0]);
  const Tensor bad = Sum(RemoteOp(group[0], "worker1", In(context), "aten::nextafter", a, b));
  const Tensor good = Sum(RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, b));
  for (int i = 0; i < 50; ++i) {
    const Error error = ErrorOf([&] { Backward(context, {bad}, BackwardOptions().Retain()); });
    ASSERT_EQ(error.code, GF_PASS_ABORTED) << error.description;
    ASSERT_THAT(error.operation, HasSubstr("Nextafter")) << error.description;
  }
  for (int i = 0; i < 49; ++i) Backward(context, {good}, BackwardOptions().Retain());
  std::vector<float> expected;
  for (float value : ReadFloats(b)) expected.push_back(49 * value);
  ExpectClose(ReadFloats(Gradient(context, a)), expected);
}

// That they must not overlap is tested with a process that can be stopped (processes_test.cc).
TEST_P(InvalidBackwardTest, PassesOfTwoWorkersInOneContextRunOneAfterTheOther) {
  Group group(transport(), {"worker0", "worker1"});
  RegisterHandlers(group.server(1));
  CallWorker(group[0], "worker1", "hold", ListOf(0, Floats({2}, {2, 3})));
  const Context context = NewContext(group[0]);
  const Tensor a = WithGrad(Floats({2}, {5, 7}));
  const Tensor loss = Sum(TensorAt(CallWorker(group[0], "worker1", "use", ListOf(0, a), In(context)), 0));
  Backward(context, {loss}, BackwardOptions().Retain());
  const Context there = FindContext(group[1], gf_context_id(context));
  const Tensor leaf = WithGrad(Floats({}, {1}));
  EXPECT_TRUE(Eventually([&] { return ErrorOf([&] { Backward(there, {leaf}); }).code == GF_OK; }));
  EXPECT_EQ(ReadFloats(Gradient(there, leaf)).size(), 1u);
  Backward(context, {loss});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({4, 6}));
}

GF_OVER_ALL_WAYS(InvalidBackwardTest);

}  // namespace
}  // namespace gf
