// Many passes at once, and many one after the other.
#include <gtest/gtest.h>

#include <set>

#include "tests/integration/modes.h"

namespace gf {
namespace {

class ConcurrencyTest : public TransportTest {};

// Forward and backward in contexts of its own, as one trainer thread does.
void Train(gf_worker* from, const std::string& to, uint32_t seed) {
  const Tensor a = WithGrad(Random({3, 3}, seed)), b = WithGrad(Random({3, 3}, seed + 1));
  const Context context = NewContext(from);
  const Tensor sum = RemoteOp(from, to, In(context), "aten::add.Tensor", a, b);
  const Tensor product = RemoteOp(from, to, In(context), "aten::mul.Tensor", sum, b);
  Backward(context, {Sum(product)});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), ReadFloats(b));
  const auto left = ReadFloats(a), right = ReadFloats(b);
  std::vector<float> expected;
  for (size_t i = 0; i < left.size(); ++i) expected.push_back(left[i] + 2 * right[i]);
  ExpectClose(ReadFloats(Gradient(context, b)), expected);
  Release(context);
}

// test_async_dist_autograd
TEST_P(ConcurrencyTest, SixtyThreadsOfThreeWorkersUseOne) {
  Group group(transport(), {"worker0", "worker1", "worker2", "worker3"});
  Threads threads;
  for (size_t worker = 1; worker < group.size(); ++worker) {
    for (uint32_t i = 0; i < 20; ++i) {
      threads.Start([&group, worker, i] { Train(group[worker], "worker0", static_cast<uint32_t>(100 * worker + i)); });
    }
  }
  threads.Join();
  EXPECT_TRUE(Eventually([&] { return Info(group[0])["contexts"] == 0; }));
}

// The same with one thread of the library on each worker: no thread may wait for a remote answer.
TEST_P(ConcurrencyTest, OneThreadOfEachWorkerIsEnough) {
  Group group(transport(), {"worker0", "worker1", "worker2"}, {{"worker.threads", "1"}});
  // Threads of the handlers' own, which block: each of 12 chains needs one on each worker.
  for (size_t i = 0; i < group.size(); ++i) RegisterHandlers(group.server(i, 12));
  Threads threads;
  for (size_t worker = 0; worker < group.size(); ++worker) {
    for (uint32_t i = 0; i < 4; ++i) {
      threads.Start([&group, worker, i] {
        Train(group[worker], group.name((worker + 1) % 3), static_cast<uint32_t>(100 * worker + i));
        const Tensor a = WithGrad(Random({3}, i));
        const Context context = NewContext(group[worker]);
        const Tensor sum =
            TensorAt(CallWorker(group[worker], group.name((worker + 1) % 3), "nested",
                                ListOf(a, a, ListOf(group.name((worker + 2) % 3), group.name(worker))), In(context)),
                     0);
        Backward(context, {Sum(sum)});
        EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>(3, 2.f));
      });
    }
  }
  threads.Join();
}

// test_multiple_backward
TEST_P(ConcurrencyTest, AThousandRetainedPassesOfOneContext) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Floats({2}, {2, 3})), b = WithGrad(Floats({2}, {5, 7}));
  const Context context = NewContext(group[0]);
  const Tensor loss = Sum(RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, b));
  for (int i = 0; i < 1000; ++i) Backward(context, {loss}, BackwardOptions().Retain());
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({5000, 7000}));
  EXPECT_EQ(ReadFloats(Gradient(context, b)), std::vector<float>({2000, 3000}));
}

// Passes that one worker starts at once in one context run one after the other.
TEST_P(ConcurrencyTest, PassesStartedTogetherInOneContextAllCount) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Floats({2}, {2, 3}));
  const Context context = NewContext(group[0]);
  const Tensor loss = Sum(RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, a));
  std::vector<Future> passes;
  for (int i = 0; i < 20; ++i) passes.push_back(StartBackward(context, {loss}, BackwardOptions().Retain()));
  for (const Future& pass : passes) EXPECT_EQ(Size(Await(pass)), 0u);
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({80, 120}));
}

// Completions of passes come in a queue, each with its token.
TEST_P(ConcurrencyTest, PassesCompleteInAQueue) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Floats({2}, {2, 3}));
  const Queue queue = NewQueue();
  std::vector<Context> contexts;
  for (uintptr_t i = 0; i < 10; ++i) {
    contexts.push_back(NewContext(group[0]));
    const Tensor loss = Sum(RemoteOp(group[0], "worker1", In(contexts.back()), "aten::mul.Tensor", a, a));
    StartBackward(contexts.back(), {loss}, BackwardOptions().To(queue, i));
  }
  std::set<uintptr_t> tokens;
  for (int i = 0; i < 10; ++i) {
    const Entry entry = Next(queue);
    EXPECT_EQ(entry.kind, GF_ENTRY_COMPLETION);
    EXPECT_EQ(entry.error.code, GF_OK) << entry.error.description;
    tokens.insert(entry.token);
    EXPECT_EQ(ReadFloats(Gradient(contexts.at(entry.token), a)), std::vector<float>({4, 6}));
  }
  EXPECT_EQ(tokens.size(), 10u);
}

// test_clean_context_during_backward: releasing a context in the middle of a pass ends the pass on all workers.
TEST_P(ConcurrencyTest, ReleasingAContextEndsItsPasses) {
  Group group(transport(), {"worker0", "worker1", "worker2"});
  for (size_t i = 0; i < group.size(); ++i) RegisterHandlers(group.server(i));
  for (uint32_t round = 0; round < 5; ++round) {
    const Tensor a = WithGrad(Random({50, 50}, round));
    const Context context = NewContext(group[0]);
    Runner run(group[0], {"worker1", "worker2"}, Mode::kSync, context);
    Tensor value = a;
    for (int i = 0; i < 20; ++i) value = run("aten::matmul", value, a);
    const Future pass = StartBackward(context, {Sum(value)});
    Threads releasing;
    releasing.Start([&] { Release(context); });
    const Error error = ErrorOf([&] { Await(pass); });
    releasing.Join();
    EXPECT_TRUE(error.code == GF_OK || error.code == GF_PASS_ABORTED) << error.description;
    for (size_t i = 0; i < group.size(); ++i) {
      EXPECT_TRUE(Eventually([&] { return Info(group[i])["passes"] == 0 && Info(group[i])["contexts"] == 0; })) << i;
    }
  }
}

// TestTrainingLoop: nothing accumulates over many steps.
TEST_P(ConcurrencyTest, ATrainingLoopEndsWithNothingPending) {
  Group group(transport(), {"worker0", "worker1"});
  for (uint32_t step = 0; step < 100; ++step) Train(group[0], "worker1", step);
  EXPECT_TRUE(Eventually([&] {
    return gf_live_objects(GF_LIVE_CALLS) == 0 && gf_live_objects(GF_LIVE_AUTOGRAD_CONTEXTS) == 0 &&
           gf_live_objects(GF_LIVE_SEND_FUNCTIONS) == 0 && gf_live_objects(GF_LIVE_RECV_FUNCTIONS) == 0;
  }));
}

// test_debug_info: the counters of a worker during and after a pass.
TEST_P(ConcurrencyTest, CountersRiseAndFallWithContextsAndPasses) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Floats({2}, {2, 3}));
  EXPECT_EQ(Info(group[0])["contexts"], 0);
  const Context context = NewContext(group[0]);
  const Tensor loss = Sum(RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, a));
  EXPECT_EQ(Info(group[0])["contexts"], 1);
  EXPECT_EQ(Info(group[1])["contexts"], 1);
  Backward(context, {loss});
  EXPECT_EQ(Info(group[0])["passes"], 0);
  EXPECT_TRUE(Eventually([&] { return Info(group[1])["passes"] == 0; }));
  Release(context);
  EXPECT_EQ(Info(group[0])["contexts"], 0);
  EXPECT_TRUE(Eventually([&] { return Info(group[1])["contexts"] == 0; }));
}

GF_OVER_ALL_WAYS(ConcurrencyTest);

}  // namespace
}  // namespace gf
