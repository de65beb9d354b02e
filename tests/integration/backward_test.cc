// Gradients of passes that cross workers: they equal those of the same computation in one process, whatever the shape
// of the graph and the way in which the calls were made.
#include <gtest/gtest.h>

#include <functional>

#include "tests/integration/modes.h"

namespace gf {
namespace {

class BackwardTest : public TransportTest {
 protected:
  // Runs a computation in all modes, each in a context of its own, and compares the gradients of the leaves; gives
  // back those of the first mode.
  std::vector<std::vector<float>> CompareModes(const std::vector<Tensor>& leaves,
                                               const std::function<Tensor(Runner&)>& loss,
                                               const BackwardOptions& options = {}) {
    Group group(transport(), {"worker0", "worker1", "worker2"});
    for (size_t i = 1; i < group.size(); ++i) RegisterHandlers(group.server(i));
    std::vector<std::vector<float>> expected;
    for (Mode mode : AllModes()) {
      SCOPED_TRACE(ModeName(mode));
      const Context context = NewContext(group[0]);
      Runner run(group[0], {"worker1", "worker2"}, mode, context);
      Backward(context, {loss(run)}, options);
      const auto gradients = Gradients(context, leaves);
      if (mode == Mode::kHere) expected = gradients;
      ExpectClose(gradients, expected);
      EXPECT_EQ(Describe(context)["known_workers"].empty(), mode == Mode::kHere);
    }
    return expected;
  }
};

// test_backward_simple
TEST_P(BackwardTest, OneOperatorOnAPeerGivesTheGradientsOfALocalOne) {
  const Tensor a = WithGrad(Random({3, 3}, 1)), b = WithGrad(Random({3, 3}, 2));
  const auto gradients = CompareModes({a, b}, [&](Runner& run) { return Sum(run("aten::mul.Tensor", a, b)); });
  EXPECT_EQ(gradients[0], ReadFloats(b));
  EXPECT_EQ(gradients[1], ReadFloats(a));
}

// test_backward_multiple_round_trips
TEST_P(BackwardTest, ChainsOverSeveralPeersWithMixedInputsGiveTheLocalGradients) {
  const Tensor t1 = WithGrad(Random({3, 3}, 1)), t2 = Random({3, 3}, 2), t3 = WithGrad(Random({3, 3}, 3));
  const Tensor t4 = Random({3, 3}, 4), t5 = WithGrad(Random({3, 3}, 5));
  const auto gradients = CompareModes({t1, t2, t3, t4, t5}, [&](Runner& run) {
    Tensor value = run("aten::add.Tensor", t1, t2);
    value = run("aten::mul.Tensor", t3, value);
    const Tensor s1 = run("aten::stack", std::vector<Tensor>{t4, value});
    const Tensor s2 = run("aten::stack", std::vector<Tensor>{t5, value});
    value = run("aten::bmm", s1, s2);
    value = run("aten::matmul", value, value);
    return Sum(value);
  });
  EXPECT_EQ(gradients[1].size(), 0u);
  EXPECT_EQ(gradients[2].size(), 9u);
  EXPECT_EQ(gradients[3].size(), 0u);
}

// E1, test_backward_unused_send_function. PyTorch: the pass hangs, or fails after the timeout of calls.
TEST_P(BackwardTest, APassFinishesAlthoughTheResultOfACallIsUnused) {
  const Tensor a = WithGrad(Random({3, 3}, 1)), b = WithGrad(Random({3, 3}, 2)), c = WithGrad(Random({3, 3}, 3));
  const auto gradients = CompareModes({a, b, c}, [&](Runner& run) {
    (void)run("aten::mul.Tensor", a, c);
    (void)run("aten::mul.Tensor", b, c);
    return Sum(run("aten::mul.Tensor", a, b));
  });
  EXPECT_EQ(gradients[0], ReadFloats(b));
  EXPECT_EQ(gradients[1], ReadFloats(a));
  EXPECT_TRUE(gradients[2].empty()) << "what the root does not depend on gets no gradient, not one of zeros";
}

// E2, the smallest example. PyTorch: the pass waits for ever, with no call outstanding that could time out.
TEST_P(BackwardTest, APurelyLocalPassFinishesBesideAnUnusedCall) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Random({3, 3}, 1));
  const Context context = NewContext(group[0]);
  (void)RemoteOp(group[0], "worker1", In(context), "aten::add.Tensor", a, a);
  Backward(context, {Sum(Mul(a, a))});
  const auto values = ReadFloats(a);
  std::vector<float> expected;
  for (float value : values) expected.push_back(2 * value);
  ExpectClose(ReadFloats(Gradient(context, a)), expected);
}

// test_backward_unused_tensors
TEST_P(BackwardTest, PartsOfAResultThatAreNotUsedGetZeros) {
  const Tensor t1 = WithGrad(Random({3, 3}, 1)), t2 = WithGrad(Random({3, 3}, 2)), t3 = WithGrad(Random({3, 3}, 3));
  const auto gradients = CompareModes({t1, t2, t3}, [&](Runner& run) {
    const Tensor stacked = run("aten::stack", std::vector<Tensor>{t1, t2, t3});
    return Sum(run("aten::matmul", Op("aten::narrow", stacked, 0, 0, 1), Op("aten::narrow", stacked, 0, 2, 1)));
  });
  EXPECT_EQ(gradients[1], std::vector<float>(9, 0.f));
  EXPECT_NE(gradients[0], std::vector<float>(9, 0.f));
}

// test_backward_multiple_output_tensors
TEST_P(BackwardTest, SomeTensorsOfAReturnedListAreUsed) {
  const Tensor t = WithGrad(Random({10, 2}, 1));
  const auto gradients = CompareModes({t}, [&](Runner& run) {
    const List parts = ListAt(run.All("aten::split.Tensor", ListOf(t, 2)), 0);
    EXPECT_EQ(Size(parts), 5u);
    return Sum(
        run("aten::chain_matmul", std::vector<Tensor>{TensorAt(parts, 0), TensorAt(parts, 2), TensorAt(parts, 4)}));
  });
  // Parts 1 and 3 took no part.
  for (size_t row : {2, 3, 6, 7}) {
    EXPECT_EQ(gradients[0][2 * row], 0.f);
    EXPECT_EQ(gradients[0][2 * row + 1], 0.f);
  }
  EXPECT_NE(gradients[0][0], 0.f);
}

// E6. PyTorch: the parameter behind an unused output gets a gradient of zeros; in one process it gets none.
TEST_P(BackwardTest, AnUnusedOutputGivesItsParameterNoGradient) {
  Group group(transport(), {"worker0", "worker1"});
  RegisterHandlers(group.server(1));
  const Tensor w0 = WithGrad(Random({2}, 1)), w1 = WithGrad(Random({2}, 2));
  const Context context = NewContext(group[0]);
  const List results =
      CallWorker(group[0], "worker1", "operator",
                 ListOf("aten::unbind.int", ListOf(Op("aten::stack", std::vector<Tensor>{w0, w1}), 0)), In(context));
  const List rows = ListAt(results, 0);
  // Each row goes back on its own, so that nothing over there ties them together but the stack.
  Backward(context, {Sum(TensorAt(rows, 0))});
  EXPECT_EQ(ReadFloats(Gradient(context, w0)), std::vector<float>({1, 1}));

  const Context other = NewContext(group[0]);
  const List both = CallWorker(group[0], "worker1", "operator",
                               ListOf("aten::broadcast_tensors", ListOf(std::vector<Tensor>{w0, w1})), In(other));
  Backward(other, {Sum(TensorAt(ListAt(both, 0), 1))});
  EXPECT_FALSE(HasGradient(other, w0));
  EXPECT_EQ(ReadFloats(Gradient(other, w1)), std::vector<float>({1, 1}));
}

// test_backward_multiple_roots
TEST_P(BackwardTest, SeveralRootsAreOnePass) {
  Group group(transport(), {"worker0", "worker1", "worker2"});
  const Tensor a = WithGrad(Random({3, 3}, 1)), b = WithGrad(Random({3, 3}, 2));
  std::vector<std::vector<float>> expected;
  for (Mode mode : {Mode::kHere, Mode::kSync, Mode::kAsync}) {
    SCOPED_TRACE(ModeName(mode));
    const Context context = NewContext(group[0]);
    Runner run(group[0], {"worker1", "worker2"}, mode, context);
    const Tensor r1 = Sum(run("aten::add.Tensor", a, b)), r2 = Sum(run("aten::mul.Tensor", a, b));
    const Tensor r3 = Sum(run("aten::cos", a)), r4 = Sum(run("aten::div.Tensor", a, b));
    Backward(context, {r1, r2, r3, r4});
    const auto gradients = Gradients(context, {a, b});
    if (mode == Mode::kHere) expected = gradients;
    ExpectClose(gradients, expected);
  }
}

// E14. PyTorch: only roots of one element, and no way to give a seed.
TEST_P(BackwardTest, RootsOfAnyShapeWithSeedGradients) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Floats({2}, {2, 3})), b = Floats({2}, {5, 7});
  const Context context = NewContext(group[0]);
  const Tensor product = RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, b);
  const Tensor loss = Sum(RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, a));
  // A seed for the one, ones for the other.
  Backward(context, {product, loss}, BackwardOptions().Seeds({Floats({2}, {10, 100}), Tensor()}));
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({10 * 5 + 2 * 2, 100 * 7 + 2 * 3}));
}

TEST_P(BackwardTest, TheSameRootTwiceCountsTwice) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Floats({2}, {2, 3}));
  const Context context = NewContext(group[0]);
  const Tensor loss = Sum(RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, a));
  Backward(context, {loss, loss});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({8, 12}));
}

// test_backward_accumulate_grads
TEST_P(BackwardTest, PassesOfOneContextAddUp) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Floats({2}, {2, 3})), b = WithGrad(Floats({2}, {5, 7}));
  const Context context = NewContext(group[0]);
  for (int pass = 0; pass < 3; ++pass) {
    Backward(context, {Sum(RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, b))});
    const float passes = static_cast<float>(pass + 1);
    EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({5 * passes, 7 * passes}));
    EXPECT_EQ(ReadFloats(Gradient(context, b)), std::vector<float>({2 * passes, 3 * passes}));
  }
}

TEST_P(BackwardTest, AGraphThatIsRetainedRunsAgain) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Floats({2}, {2, 3}));
  const Context context = NewContext(group[0]);
  const Tensor loss = Sum(RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, a));
  Backward(context, {loss}, BackwardOptions().Retain());
  Backward(context, {loss}, BackwardOptions().Retain());
  Backward(context, {loss});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({12, 18}));
}

// test_nested_backward_accumulate_grads
TEST_P(BackwardTest, PassesOverCallsOfTwoHopsAddUp) {
  Group group(transport(), {"worker0", "worker1", "worker2"});
  for (size_t i = 0; i < group.size(); ++i) RegisterHandlers(group.server(i));
  const Tensor a = WithGrad(Floats({2}, {2, 3})), b = WithGrad(Floats({2}, {5, 7}));
  const Context context = NewContext(group[0]);
  // worker0 to worker1 to worker2 and back to worker0.
  for (int pass = 0; pass < 2; ++pass) {
    const Tensor sum =
        TensorAt(CallWorker(group[0], "worker1", "nested", ListOf(a, b, ListOf("worker2", "worker0")), In(context)), 0);
    EXPECT_EQ(ReadFloats(sum), std::vector<float>({7, 10}));
    const Tensor loss = Sum(Mul(sum, sum));
    Backward(context, {loss}, BackwardOptions().Retain());
    Backward(context, {loss});
  }
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({56, 80}));
  EXPECT_EQ(ReadFloats(Gradient(context, b)), std::vector<float>({56, 80}));
}

// test_backward_different_dtypes
TEST_P(BackwardTest, GradientsHaveTheDtypeOfTheirTensor) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor single = WithGrad(Floats({2}, {2, 3})), twice = WithGrad(Doubles({2}, {5, 7}));
  const Context context = NewContext(group[0]);
  Backward(context, {Sum(RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", single, twice))});
  EXPECT_EQ(ReadFloats(Gradient(context, single)), std::vector<float>({5, 7}));
  EXPECT_EQ(ReadDoubles(Gradient(context, twice)), std::vector<double>({2, 3}));
}

// test_backward_different_tensor_dims
TEST_P(BackwardTest, TensorsOfDifferentShapesMultiplyAcrossWorkers) {
  const Tensor t1 = WithGrad(Random({4, 6}, 1)), t2 = Random({6, 5}, 2), t3 = WithGrad(Random({5, 7}, 3));
  const Tensor t4 = Random({7, 9}, 4);
  const auto gradients = CompareModes({t1, t3}, [&](Runner& run) {
    Tensor value = run("aten::matmul", t1, t2);
    value = run("aten::linalg_multi_dot", std::vector<Tensor>{value, t3, t4});
    return Sum(value);
  });
  EXPECT_EQ(gradients[0].size(), 24u);
  EXPECT_EQ(gradients[1].size(), 35u);
}

// test_backward_simple_self
TEST_P(BackwardTest, AWorkerCallsItselfWithinAContext) {
  Group group(transport(), {"worker0"});
  const Tensor a = WithGrad(Floats({2}, {2, 3})), b = WithGrad(Floats({2}, {5, 7}));
  const Context context = NewContext(group[0]);
  const Tensor product = RemoteOp(group[0], "worker0", In(context), "aten::mul.Tensor", a, b);
  EXPECT_EQ(ReadFloats(product), std::vector<float>({10, 21}));
  Backward(context, {Sum(product)});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({5, 7}));
  EXPECT_EQ(ReadFloats(Gradient(context, b)), std::vector<float>({2, 3}));
}

// That `.grad` of tensors is never touched is tested with libtorch itself (hooks_test.cc).
TEST_P(BackwardTest, GradientsBelongToTheirContextAlone) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Floats({2}, {2, 3}));
  const Context first = NewContext(group[0]), second = NewContext(group[0]);
  Backward(first, {Sum(RemoteOp(group[0], "worker1", In(first), "aten::mul.Tensor", a, a))});
  EXPECT_FALSE(HasGradient(second, a));
  EXPECT_EQ(GradientCount(second), 0u);
  Backward(second, {Sum(RemoteOp(group[0], "worker1", In(second), "aten::add.Tensor", a, a))});
  EXPECT_EQ(ReadFloats(Gradient(first, a)), std::vector<float>({4, 6}));
  EXPECT_EQ(ReadFloats(Gradient(second, a)), std::vector<float>({2, 2}));
  EXPECT_EQ(GradientCount(first), 1u);
}

// A leaf as root is legal here: its seed is its gradient.
TEST_P(BackwardTest, ALeafMayBeARoot) {
  Group group(transport(), {"worker0"});
  const Tensor leaf = WithGrad(Floats({2}, {2, 3}));
  const Context context = NewContext(group[0]);
  Backward(context, {leaf}, BackwardOptions().Seeds({Floats({2}, {10, 100})}));
  EXPECT_EQ(ReadFloats(Gradient(context, leaf)), std::vector<float>({10, 100}));
  const Tensor scalar = WithGrad(Floats({}, {4}));
  Backward(context, {scalar});
  EXPECT_EQ(ReadFloats(Gradient(context, scalar)), std::vector<float>({1}));
}

// A tensor that came from a peer is a root like any other.
TEST_P(BackwardTest, TheResultOfACallMayBeTheRoot) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Floats({2}, {2, 3}));
  const Context context = NewContext(group[0]);
  const Tensor sum = RemoteOp(group[0], "worker1", In(context), "aten::sum", a);
  Backward(context, {sum});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({1, 1}));
}

// test_backward_without_rpc
TEST_P(BackwardTest, AContextWithoutCallsComputesGradients) {
  Group group(transport(), {"worker0"});
  const Tensor a = WithGrad(Floats({2}, {2, 3})), b = WithGrad(Floats({2}, {5, 7}));
  const Context context = NewContext(group[0]);
  Backward(context, {Sum(Add(Mul(a, b), a))});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({6, 8}));
  EXPECT_EQ(ReadFloats(Gradient(context, b)), std::vector<float>({2, 3}));
  EXPECT_EQ(GradientCount(context), 2u);
}

GF_OVER_ALL_WAYS(BackwardTest);

}  // namespace
}  // namespace gf
