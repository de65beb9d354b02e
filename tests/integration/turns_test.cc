// Passes in one context take turns, whichever workers begin them; a failed one leaves nothing; one may begin within
// another.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "tests/integration/modes.h"

namespace gf {
namespace {

using ::testing::HasSubstr;

class TurnsTest : public TransportTest {};

[[noreturn]] void ThrowError(int32_t code, const std::string& message) {
  Error error;
  error.code = code;
  error.message = message;
  throw Failure(error);
}

// All workers at once, each over another worker and to parameters of its own.
TEST_P(TurnsTest, PassesOfAllWorkersInOneContextAreExact) {
  constexpr int kPasses = 10;
  Group group(transport(), {"worker0", "worker1", "worker2"});
  std::vector<Tensor> parameters;
  for (size_t i = 0; i < group.size(); ++i) {
    parameters.push_back(WithGrad(Floats({2}, {2, 3})));
    group.server(i).On("pass", [&group, i, p = parameters[i]](const Request& request) {
      const Context context = FindContext(group[i], IntAt(Arguments(request), 0));
      const std::string next = "worker" + std::to_string((i + 1) % 3);
      Backward(context, {Sum(RemoteOp(group[i], next, In(context), "aten::mul.Tensor", p, p))});
      return NewList();
    });
  }
  const Context context = NewContext(group[0]);
  // So that every worker knows it.
  for (const char* name : {"worker1", "worker2"}) {
    RemoteOp(group[0], name, In(context), "aten::mul.Tensor", parameters[0], parameters[0]);
  }
  Threads threads;
  for (size_t i = 0; i < group.size(); ++i) {
    threads.Start([&, i] {
      for (int k = 0; k < kPasses; ++k) {
        CallWorker(group[0], "worker" + std::to_string(i), "pass", ListOf(gf_context_id(context)));
      }
    });
  }
  threads.Join();
  for (size_t i = 0; i < group.size(); ++i) {
    const Context here = FindContext(group[i], gf_context_id(context));
    EXPECT_EQ(ReadFloats(Gradient(here, parameters[i])), std::vector<float>({4 * kPasses, 6 * kPasses}));
  }
  EXPECT_EQ(Explain(context)["waiting_turns"], 0);
  Release(context);
}

// worker1's parameter has its gradient before the hook here fails.
TEST_P(TurnsTest, AFailedPassTakesItsGradientsBackOnAllWorkers) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Floats({2}, {2, 3})), p = WithGrad(Floats({2}, {5, 7}));
  group.server(1).On("scale", [p](const Request& request) { return ListOf(Mul(TensorAt(Arguments(request), 0), p)); });
  const Context context = NewContext(group[0]);
  const Tensor twice = Add(a, a);
  const Tensor loss = Sum(TensorAt(CallWorker(group[0], "worker1", "scale", ListOf(twice), In(context)), 0));
  const Context there = FindContext(group[1], gf_context_id(context));
  auto fail = [&] {
    std::atomic<bool> p_had_one{false};
    const uint64_t watching = RegisterHook(p, [&](const Tensor&) {
      p_had_one = true;
      return Tensor();
    });
    const uint64_t failing =
        RegisterHook(twice, [](const Tensor&) -> Tensor { ThrowError(GF_OUT_OF_RANGE, "too large"); });
    const Error error = ErrorOf([&] { Backward(context, {loss}, BackwardOptions().Retain()); });
    EXPECT_EQ(error.code, GF_PASS_ABORTED);
    EXPECT_THAT(error.root().message, HasSubstr("too large"));
    EXPECT_TRUE(p_had_one);
    RemoveHook(p, watching);
    RemoveHook(twice, failing);
  };
  fail();
  EXPECT_EQ(GradientCount(context), 0u);
  EXPECT_EQ(GradientCount(there), 0u);
  Backward(context, {loss}, BackwardOptions().Retain());
  for (int i = 0; i < 3; ++i) fail();
  Backward(context, {loss}, BackwardOptions().Retain());
  fail();
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({20, 28}));
  EXPECT_EQ(ReadFloats(Gradient(there, p)), std::vector<float>({8, 12}));
}

// As checkpointing does: what runs within a node begins a pass over what it computes there, with calls of its own.
TEST_P(TurnsTest, APassMayBeginWithinAnotherOne) {
  Group group(transport(), {"worker0", "worker1"}, {{"worker.threads", "1"}});
  const Tensor a = WithGrad(Floats({2}, {2, 3})), inner = WithGrad(Floats({2}, {5, 7}));
  const Context context = NewContext(group[0]);
  const Tensor product = RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, a);
  RegisterHook(product, [&](const Tensor&) {
    const Tensor again = RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", inner, inner);
    Backward(context, {Sum(again)});
    return Tensor();
  });
  Backward(context, {Sum(product)});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({4, 6}));
  EXPECT_EQ(ReadFloats(Gradient(context, inner)), std::vector<float>({10, 14}));
}

TEST_P(TurnsTest, PassesNestDeeply) {
  constexpr int kDepth = 256;
  Group group(transport(), {"worker0", "worker1"}, {{"worker.threads", "1"}});
  const Context context = NewContext(group[0]);
  const Tensor leaf = WithGrad(Floats({}, {1}));
  std::function<void(int)> descend = [&](int depth) {
    const Tensor product = RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", leaf, Floats({}, {2}));
    if (depth < kDepth) {
      RegisterHook(product, [&, depth](const Tensor&) {
        descend(depth + 1);
        return Tensor();
      });
    }
    Backward(context, {product});
  };
  descend(1);
  EXPECT_EQ(ReadFloats(Gradient(context, leaf)), std::vector<float>({2 * kDepth}));
}

// It is not waited for by the hook, but by the pass.
TEST_P(TurnsTest, APassDoesNotEndBeforeThoseThatBeganWithinIt) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Floats({2}, {2, 3})), inner = WithGrad(Floats({2}, {5, 7}));
  const Context context = NewContext(group[0]);
  const Tensor again = RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", inner, inner);
  const Tensor product = RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, a);
  Future started;
  RegisterHook(product, [&](const Tensor&) {
    started = StartBackward(context, {Sum(again)});
    return Tensor();
  });
  Backward(context, {Sum(product)});
  EXPECT_TRUE(IsDone(started));
  EXPECT_EQ(ReadFloats(Gradient(context, inner)), std::vector<float>({10, 14}));
}

// The gradients of both are taken back, also where only the inner one was.
TEST_P(TurnsTest, AnInnerPassThatFailsFailsTheOuterOne) {
  Group group(transport(), {"worker0", "worker1", "worker2"});
  const Tensor a = WithGrad(Floats({2}, {2, 3})), p = WithGrad(Floats({2}, {5, 7})), x = WithGrad(Floats({2}, {1, 1}));
  group.server(2).On("scale", [p](const Request& request) { return ListOf(Mul(TensorAt(Arguments(request), 0), p)); });
  RegisterHook(x, [](const Tensor&) -> Tensor { ThrowError(GF_OUT_OF_RANGE, "too large"); });
  const Context context = NewContext(group[0]);
  const Tensor product = RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, a);
  Error inner;
  const uint64_t hook = RegisterHook(product, [&](const Tensor&) {
    const Tensor scaled = TensorAt(CallWorker(group[0], "worker2", "scale", ListOf(x), In(context)), 0);
    inner = ErrorOf([&] { Backward(context, {Sum(scaled)}); });
    return Tensor();  // swallowed, in vain
  });
  const Error error = ErrorOf([&] { Backward(context, {Sum(product)}, BackwardOptions().Retain()); });
  EXPECT_EQ(inner.code, GF_PASS_ABORTED);
  EXPECT_EQ(error.code, GF_PASS_ABORTED);
  EXPECT_THAT(error.description, HasSubstr("too large"));
  const Context there = FindContext(group[2], gf_context_id(context));
  EXPECT_EQ(GradientCount(there), 0u);
  EXPECT_EQ(GradientCount(context), 0u);
  RemoveHook(product, hook);
  Backward(context, {Sum(product)});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({4, 6}));
}

// A pass that cannot have its turn ends at its deadline, or by a cancel, and the turns go on.
TEST_P(TurnsTest, APassMayEndBeforeItsTurn) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Floats({2}, {2, 3}));
  const Context context = NewContext(group[0]);
  const Tensor product = RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, a);
  Context there = FindContext(group[1], gf_context_id(context));
  std::atomic<bool> go_on{false};
  RegisterHook(product, [&](const Tensor&) {
    Eventually([&] { return go_on.load(); });
    return Tensor();
  });
  const Future first = StartBackward(context, {Sum(product)});
  const Error late = ErrorOf([&] { Backward(there, {Sum(a)}, BackwardOptions().Deadline(20 * kMillisecond)); });
  EXPECT_EQ(late.code, GF_DEADLINE_EXCEEDED);
  EXPECT_THAT(late.message, HasSubstr("its turn"));
  const Future cancelled = StartBackward(there, {Sum(a)});
  EXPECT_TRUE(Eventually([&] { return Explain(context)["waiting_turns"] == 1; })) << ExplainText(context);
  EXPECT_THAT(ExplainText(there), HasSubstr("waits for its turn"));
  Call(gf_future_cancel, cancelled);
  EXPECT_EQ(ErrorOf([&] { Await(cancelled); }).code, GF_CANCELLED);
  EXPECT_TRUE(Eventually([&] { return Explain(context)["waiting_turns"] == 0; })) << ExplainText(context);
  const Future second = StartBackward(there, {Sum(a)});
  go_on = true;
  Await(first);
  Await(second);
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({4, 6}));
  EXPECT_EQ(ReadFloats(Gradient(there, a)), std::vector<float>({1, 1}));
}

// Released while a pass runs and others, of other workers too, wait their turn: all end with an error.
TEST_P(TurnsTest, AReleasedContextEndsTheTurnsThatWait) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Floats({2}, {2, 3}));
  const Context context = NewContext(group[0]);
  const Tensor product = RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, a);
  const Context there = FindContext(group[1], gf_context_id(context));
  std::atomic<bool> go_on{false};
  RegisterHook(product, [&](const Tensor&) {
    Eventually([&] { return go_on.load(); });
    return Tensor();
  });
  const Future first = StartBackward(context, {Sum(product)});
  const Future second = StartBackward(context, {Sum(a)});
  const Future third = StartBackward(there, {Sum(a)});
  EXPECT_TRUE(Eventually([&] { return Explain(context)["waiting_turns"] == 2; })) << ExplainText(context);
  Release(context);
  go_on = true;
  for (const Future& future : {first, second, third}) {
    EXPECT_NE(ErrorOf([&] { Await(future); }).code, GF_OK);
  }
}

TEST_P(TurnsTest, NothingIsExplainedWhereNothingRuns) {
  Group group(transport(), {"worker0"});
  const Context context = NewContext(group[0]);
  EXPECT_EQ(Explain(context)["passes"].size(), 0u);
  EXPECT_THAT(ExplainText(context), HasSubstr("0 passes"));
  size_t length = 0;
  EXPECT_EQ(ErrorOf([&] {
              Call(gf_context_explain, context, uint32_t{7}, static_cast<char*>(nullptr), size_t{0}, &length);
            }).code,
            GF_UNSUPPORTED);
}

// Whoever gave a turn takes it back with the connection, so the pass may not go on in it.
TEST(TurnsOverSim, APassEndsWithTheConnectionToWhoGaveItsTurn) {
  // Resets the connection of the first plain call.
  Group group("sim", {"worker0", "worker1"},
              {{"transport.sim.faults", "[{ fault = \"reset\", bytes = [[4, 4]], count = 1 }]"}});
  group.server(0).On("hello", [](const Request&) { return NewList(); });
  const Tensor a = WithGrad(Floats({2}, {2, 3}));
  const Context context = NewContext(group[0]);
  RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, a);
  const Context there = FindContext(group[1], gf_context_id(context));
  const Tensor twice = Add(a, a);
  int calls = 0;
  RegisterHook(twice, [&](const Tensor&) {
    ++calls;
    EXPECT_EQ(ErrorOf([&] { CallWorker(group[1], "worker0", "hello", NewList()); }).code,
              calls == 1 ? GF_PEER_LOST : GF_OK);
    return Tensor();
  });
  const Error error = ErrorOf([&] { Backward(there, {Sum(twice)}, BackwardOptions().Retain()); });
  EXPECT_EQ(error.code, GF_PASS_ABORTED);
  EXPECT_THAT(error.root().message, HasSubstr("worker0"));
  EXPECT_EQ(GradientCount(there), 0u);
  Backward(there, {Sum(twice)});
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(ReadFloats(Gradient(there, a)), std::vector<float>({2, 2}));
}

GF_OVER_ALL_WAYS(TurnsTest);

}  // namespace
}  // namespace gf
