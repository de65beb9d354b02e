// Passes over workers that are processes of their own, joined by a file. Each process also reports, when it ends, that
// nothing was left behind in it (peer_main.cc).
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/integration/fleet.h"
#include "tests/integration/graphs.h"
#include "tests/integration/modes.h"

namespace gf {
namespace {

class ProcessesTest : public TransportTest {};

// The same computation here and over processes, in all modes.
std::vector<std::vector<float>> CompareModes(gf_worker* from, const std::vector<std::string>& peers,
                                             const std::vector<Tensor>& leaves,
                                             const std::function<Tensor(Runner&)>& loss) {
  std::vector<std::vector<float>> expected;
  for (Mode mode : AllModes()) {
    SCOPED_TRACE(ModeName(mode));
    const Context context = NewContext(from);
    Runner run(from, peers, mode, context);
    Backward(context, {loss(run)});
    const auto gradients = Gradients(context, leaves);
    if (mode == Mode::kHere) expected = gradients;
    ExpectClose(gradients, expected);
  }
  return expected;
}

// test_backward_simple, test_backward_multiple_round_trips, test_backward_unused_send_function
TEST_P(ProcessesTest, GradientsAreThoseOfOneProcess) {
  Fleet fleet(3, transport());
  const std::vector<std::string> peers = {"worker1", "worker2"};
  const Tensor t1 = WithGrad(Random({3, 3}, 1)), t2 = Random({3, 3}, 2), t3 = WithGrad(Random({3, 3}, 3));
  const Tensor t4 = Random({3, 3}, 4), t5 = WithGrad(Random({3, 3}, 5));
  CompareModes(fleet.worker(), peers, {t1, t3}, [&](Runner& run) { return Sum(run("aten::mul.Tensor", t1, t3)); });
  CompareModes(fleet.worker(), peers, {t1, t3, t5}, [&](Runner& run) {
    Tensor value = run("aten::mul.Tensor", t3, run("aten::add.Tensor", t1, t2));
    const Tensor s1 = run("aten::stack", std::vector<Tensor>{t4, value});
    const Tensor s2 = run("aten::stack", std::vector<Tensor>{t5, value});
    value = run("aten::bmm", s1, s2);
    return Sum(run("aten::matmul", value, value));
  });
  const auto gradients = CompareModes(fleet.worker(), peers, {t1, t3, t5}, [&](Runner& run) {
    (void)run("aten::mul.Tensor", t1, t5);
    (void)run("aten::mul.Tensor", t3, t5);
    return Sum(run("aten::mul.Tensor", t1, t3));
  });
  EXPECT_TRUE(gradients[2].empty());
}

// test_async_dist_autograd, with the worker that is hammered in another process.
TEST_P(ProcessesTest, ManyThreadsUseOneProcess) {
  Fleet fleet(2, transport());
  Threads threads;
  for (uint32_t i = 0; i < 20; ++i) {
    threads.Start([&fleet, i] {
      for (uint32_t round = 0; round < 3; ++round) {
        const Tensor a = WithGrad(Random({3, 3}, i)), b = WithGrad(Random({3, 3}, 100 + round));
        const Context context = NewContext(fleet.worker());
        Backward(context, {Sum(RemoteOp(fleet.worker(), "worker1", In(context), "aten::mul.Tensor", a, b))});
        EXPECT_EQ(ReadFloats(Gradient(context, a)), ReadFloats(b));
        EXPECT_EQ(ReadFloats(Gradient(context, b)), ReadFloats(a));
      }
    });
  }
  threads.Join();
  EXPECT_TRUE(Eventually([&] { return fleet.ContextsAt(1) == 0; }));
}

// test_context_cleanup_nested_rpc, test_graph_for_py_nested_call, test_graph_for_py_nested_call_itself
TEST_P(ProcessesTest, GraphsSpanProcessesAndAreCleanedUp) {
  Fleet fleet(3, transport());
  const Tensor a = WithGrad(Random({3, 3}, 1)), b = WithGrad(Random({3, 3}, 2));
  const Context chain = NewContext(fleet.worker());
  const Tensor sum =
      TensorAt(CallWorker(fleet.worker(), "worker1", "nested", ListOf(a, b, ListOf("worker2")), In(chain)), 0);
  ExpectCallerGraph(Describe(chain), 1);
  ExpectMiddleGraph(fleet.DescribeAt(1, chain), 0, 2);
  ExpectCalleeGraph(fleet.DescribeAt(2, chain), 1);

  const Context loop = NewContext(fleet.worker());
  const List back = CallWorker(fleet.worker(), "worker1", "nested", ListOf(a, b, ListOf("worker0")), In(loop));
  ExpectLoopGraph(Describe(loop), 1);
  ExpectMiddleGraph(fleet.DescribeAt(1, loop), 0, 0);

  Backward(chain, {Sum(sum)});
  EXPECT_EQ(ReadFloats(Gradient(chain, a)), std::vector<float>(9, 1.f));
  EXPECT_EQ(fleet.ContextsAt(1), 2);
  EXPECT_EQ(fleet.ContextsAt(2), 1);
  Release(chain);
  Release(loop);
  for (int rank : {1, 2}) EXPECT_TRUE(Eventually([&] { return fleet.ContextsAt(rank) == 0; })) << rank;
}

// Parameters of another process get their gradients there.
TEST_P(ProcessesTest, ParametersOfAnotherProcessHaveTheirGradientsThere) {
  Fleet fleet(2, transport());
  CallWorker(fleet.worker(), "worker1", "hold", ListOf(7, Floats({2}, {2, 3})));
  const Tensor input = WithGrad(Floats({2}, {5, 7}));
  const Context context = NewContext(fleet.worker());
  Backward(context, {Sum(TensorAt(CallWorker(fleet.worker(), "worker1", "use", ListOf(7, input), In(context)), 0))});
  EXPECT_EQ(ReadFloats(Gradient(context, input)), std::vector<float>({2, 3}));
  const List there = CallWorker(fleet.worker(), "worker1", "gradient", ListOf(gf_context_id(context), 7));
  EXPECT_EQ(ReadFloats(TensorAt(there, 0)), std::vector<float>({5, 7}));
}

// A tensor that is large enough to travel beside the message, both ways.
TEST_P(ProcessesTest, LargeTensorsAndTheirGradientsCross) {
  Fleet fleet(2, transport());
  const Tensor large = WithGrad(Random({1024, 1024}, 1)), other = Random({1024, 1024}, 2);
  const Context context = NewContext(fleet.worker());
  const Tensor product = RemoteOp(fleet.worker(), "worker1", In(context), "aten::mul.Tensor", large, other);
  EXPECT_EQ(ReadFloats(product), ReadFloats(Mul(large, other)));
  Backward(context, {Sum(product)});
  EXPECT_EQ(ReadFloats(Gradient(context, large)), ReadFloats(other));
}

// A few rows of a large tensor: what is not in them does not travel, and they arrive as they were.
TEST_P(ProcessesTest, AViewOfALargeStorageArrivesAsItIs) {
  Fleet fleet(2, transport());
  const Tensor large = Random({1024, 1024}, 1);
  // 16 rows by 16 columns, 1 KiB, of 4 MiB, with gaps between its elements both ways.
  const Tensor view = Op("aten::as_strided", large, Shape{16, 16}, Shape{3 * 1024, 5}, 100);
  const Tensor transposed = Op("aten::t", view);
  for (const Tensor& sent : {view, transposed}) {
    const Tensor got = RemoteOp(fleet.worker(), "worker1", {}, "aten::mul.Tensor", sent, Floats({}, {1}));
    EXPECT_EQ(ShapeOf(got), ShapeOf(sent));
    EXPECT_EQ(ReadFloats(got), ReadFloats(sent));
  }
}

// PyTorch's test_backward_node_failure and its relatives.
class KilledPeerTest : public ProcessesTest {
 protected:
  static void ExpectNamesWorker1(const Error& error) {
    EXPECT_TRUE(error.root().code == GF_PEER_LOST || error.root().code == GF_UNAVAILABLE) << error.description;
    EXPECT_EQ(error.root().peer, "worker1") << error.description;
    EXPECT_NE(error.message.find("worker1"), std::string::npos) << error.description;
    EXPECT_LT(error.elapsed_ns, kPatience);
  }
};

TEST_P(KilledPeerTest, ACallInFlightFailsAtOnce) {
  Fleet fleet(2, transport());
  // So that there is a connection.
  EXPECT_EQ(fleet.ContextsAt(1), 0);
  fleet.Stop(1);
  const Future call = StartCall(fleet.worker(), "worker1", "contexts", NewList());
  EXPECT_FALSE(IsDone(call));
  fleet.Kill(1);
  ExpectNamesWorker1(ErrorOf([&] { Await(call); }));
  // So does the next one.
  ExpectNamesWorker1(ErrorOf([&] { CallWorker(fleet.worker(), "worker1", "contexts", NewList()); }));
}

TEST_P(KilledPeerTest, APassInFlightFailsAtOnce) {
  Fleet fleet(2, transport());
  const Tensor a = WithGrad(Random({3, 3}, 1));
  const Context context = NewContext(fleet.worker());
  const Tensor loss = Sum(RemoteOp(fleet.worker(), "worker1", In(context), "aten::mul.Tensor", a, a));
  fleet.Stop(1);
  const Future pass = StartBackward(context, {loss});
  EXPECT_TRUE(Eventually([] { return gf_live_objects(GF_LIVE_CALLS) == 2; })) << "a mark and the gradients are sent";
  EXPECT_FALSE(IsDone(pass));
  fleet.Kill(1);
  const Error error = ErrorOf([&] { Await(pass); });
  EXPECT_EQ(error.code, GF_PASS_ABORTED);
  ExpectNamesWorker1(error);
  // The context is fine for what does not need that worker.
  Backward(context, {Sum(Mul(a, a))});
  EXPECT_TRUE(HasGradient(context, a));
}

// test_backward_node_failure
TEST_P(KilledPeerTest, APassThatBeginsAfterItsDeathFails) {
  Fleet fleet(3, transport());
  const Tensor a = WithGrad(Random({3, 3}, 1));
  const Context context = NewContext(fleet.worker());
  const Tensor first = RemoteOp(fleet.worker(), "worker1", In(context), "aten::mul.Tensor", a, a);
  const Tensor second = RemoteOp(fleet.worker(), "worker2", In(context), "aten::mul.Tensor", first, a);
  fleet.Kill(1);
  const Error error = ErrorOf([&] { Backward(context, {Sum(second)}); });
  EXPECT_EQ(error.code, GF_PASS_ABORTED);
  ExpectNamesWorker1(error);
  Release(context);
  EXPECT_TRUE(Eventually([&] { return fleet.ContextsAt(2) == 0; }));
}

// test_backward_node_failure_python_udf: the last hop of a chain dies; all workers of the pass hear of it.
TEST_P(KilledPeerTest, ThePassFailsWhenTheLastHopOfAChainIsKilled) {
  Fleet fleet(3, transport());
  const Tensor a = WithGrad(Random({3, 3}, 1));
  const Context context = NewContext(fleet.worker());
  const Tensor sum =
      TensorAt(CallWorker(fleet.worker(), "worker2", "nested", ListOf(a, a, ListOf("worker1")), In(context)), 0);
  fleet.Stop(1);
  const Future pass = StartBackward(context, {Sum(sum)});
  EXPECT_TRUE(Eventually([&] {
    const auto described = fleet.DescribeAt(2, context);
    return described["passes"].size() == 1;
  }));
  EXPECT_FALSE(IsDone(pass));
  fleet.Kill(1);
  const Error error = ErrorOf([&] { Await(pass); });
  EXPECT_EQ(error.code, GF_PASS_ABORTED);
  ExpectNamesWorker1(error);
  EXPECT_EQ(error.worker, "worker2") << error.description;
  EXPECT_TRUE(Eventually([&] { return fleet.DescribeAt(2, context)["passes"].empty(); }));
  Release(context);
  EXPECT_TRUE(Eventually([&] { return fleet.ContextsAt(2) == 0; }));
}

// A process that stands still is not dead: the deadline of the pass ends it, and says whom it waits for.
TEST_P(ProcessesTest, ThePassOfAProcessThatStandsStillEndsAtItsDeadline) {
  Fleet fleet(2, transport());
  const Tensor a = WithGrad(Random({3, 3}, 1));
  const Context context = NewContext(fleet.worker());
  const Tensor loss = Sum(RemoteOp(fleet.worker(), "worker1", In(context), "aten::mul.Tensor", a, a));
  fleet.Stop(1);
  const auto began = std::chrono::steady_clock::now();
  const Error error =
      ErrorOf([&] { Backward(context, {loss}, BackwardOptions().Retain().Deadline(100 * kMillisecond)); });
  EXPECT_GE(std::chrono::steady_clock::now() - began, std::chrono::milliseconds(100));
  EXPECT_EQ(error.code, GF_DEADLINE_EXCEEDED);
  EXPECT_NE(error.message.find("worker1"), std::string::npos) << error.description;
  EXPECT_GT(error.elapsed_ns, 0);
  fleet.process(1).Signal(SIGCONT);
  Backward(context, {loss});
  std::vector<float> expected;
  for (float value : ReadFloats(a)) expected.push_back(2 * value);
  EXPECT_EQ(ReadFloats(Gradient(context, a)), expected);
}

TEST_P(ProcessesTest, APassThatIsCancelledEnds) {
  Fleet fleet(2, transport());
  const Tensor a = WithGrad(Random({3, 3}, 1));
  const Context context = NewContext(fleet.worker());
  const Tensor loss = Sum(RemoteOp(fleet.worker(), "worker1", In(context), "aten::mul.Tensor", a, a));
  fleet.Stop(1);
  const Future pass = StartBackward(context, {loss}, BackwardOptions().Retain());
  EXPECT_FALSE(IsDone(pass));
  Call(gf_future_cancel, pass);
  EXPECT_EQ(ErrorOf([&] { Await(pass); }).code, GF_CANCELLED);
  EXPECT_TRUE(Eventually([] { return gf_live_objects(GF_LIVE_PASSES) == 0; }));
  fleet.process(1).Signal(SIGCONT);
  Backward(context, {loss});
  EXPECT_TRUE(HasGradient(context, a));
}

// What it waits for, and since when, can be asked while it waits.
TEST_P(ProcessesTest, APassThatWaitsSaysWhatFor) {
  Fleet fleet(2, transport());
  const Tensor a = WithGrad(Random({3, 3}, 1));
  const Context context = NewContext(fleet.worker());
  const Tensor loss = Sum(RemoteOp(fleet.worker(), "worker1", In(context), "aten::mul.Tensor", a, a));
  fleet.Stop(1);
  const Future pass = StartBackward(context, {loss});
  EXPECT_TRUE(Eventually([&] {
    const auto explained = Explain(context);
    return explained["passes"].size() == 1 && explained["passes"][0]["unanswered"].size() == 1;
  })) << ExplainText(context);
  const auto waiting = Explain(context)["passes"][0];
  EXPECT_EQ(waiting["unanswered"][0]["peer"], "worker1");
  EXPECT_GT(waiting["elapsed_ms"], 0);
  EXPECT_NE(ExplainText(context).find("worker worker1 has not answered"), std::string::npos) << ExplainText(context);
  fleet.process(1).Signal(SIGCONT);
  Await(pass);
  EXPECT_EQ(Explain(context)["passes"].size(), 0u);
}

// A pass that another worker begins meanwhile waits its turn; both gradients are right.
TEST_P(ProcessesTest, APassWaitsForOneThatAnotherWorkerRunsInTheSameContext) {
  Fleet fleet(3, transport());
  const Tensor a = WithGrad(Floats({2}, {2, 3}));
  const Context context = NewContext(fleet.worker());
  const Tensor sum =
      TensorAt(CallWorker(fleet.worker(), "worker2", "nested", ListOf(a, a, ListOf("worker1")), In(context)), 0);
  fleet.Stop(1);
  const Future pass = StartBackward(context, {Sum(sum)});
  const Future second = StartCall(fleet.worker(), "worker2", "backward_of_a_leaf", ListOf(gf_context_id(context)));
  EXPECT_TRUE(Eventually([&] { return Explain(context)["waiting_turns"] == 1; })) << Explain(context);
  EXPECT_FALSE(IsDone(pass));
  EXPECT_FALSE(IsDone(second));
  fleet.process(1).Signal(SIGCONT);
  Await(pass);
  Await(second);
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({2, 2}));
  EXPECT_EQ(fleet.DescribeAt(2, context)["gradients"], 1);
}

GF_OVER_ALL_REAL_WAYS(ProcessesTest);
GF_OVER_ALL_REAL_WAYS(KilledPeerTest);

}  // namespace
}  // namespace gf
