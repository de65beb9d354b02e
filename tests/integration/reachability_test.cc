// What a pass does not depend on never holds it up, and what it depends on is always part of it: calls whose results
// are ignored, that failed, that record nothing, that return no tensor, that other threads made. PyTorch's distributed
// autograd hangs, or cuts the graph silently, in each of these; docs/compared-with-pytorch.md lists them.
#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <stdexcept>

#include "tests/integration/modes.h"

namespace gf {
namespace {

class ReachabilityTest : public TransportTest {
 protected:
  void SetUp() override {
    TransportTest::SetUp();
    group_.emplace(transport(), std::vector<std::string>{"worker0", "worker1", "worker2"});
    for (size_t i = 1; i < group_->size(); ++i) RegisterHandlers(group_->server(i));
    context_ = NewContext(worker(0));
  }
  void TearDown() override {
    context_.reset();
    group_.reset();
    TransportTest::TearDown();
  }

  gf_worker* worker(size_t index) const { return (*group_)[index]; }
  Tensor Remote(const std::string& to, const CallOptions& options, const std::string& name, const Tensor& a,
                const Tensor& b) {
    return RemoteOp(worker(0), to, options, name, a, b);
  }

  const Tensor x_ = WithGrad(Floats({2}, {2, 3}));
  const Tensor other_ = Floats({2}, {5, 7});
  std::optional<Group> group_;
  Context context_;
};

// E3. PyTorch: the callee, which is not told of no_grad, records the call and then waits for its gradient.
TEST_P(ReachabilityTest, ACallUnderNoGradHoldsNoPassUp) {
  const Tensor used = Remote("worker1", In(context_), "aten::mul.Tensor", x_, other_);
  for (const char* name : {"aten::mul.Tensor", "operator"}) {
    const List arguments =
        name == std::string("operator") ? ListOf("aten::mul.Tensor", ListOf(x_, x_)) : ListOf(x_, x_);
    const List metric = CallWorker(worker(0), "worker1", name, arguments, In(context_).NoGrad());
    EXPECT_FALSE(RequiresGrad(TensorAt(metric, 0)));
  }
  Backward(context_, {Sum(used)});
  EXPECT_EQ(ReadFloats(Gradient(context_, x_)), std::vector<float>({5, 7}));
}

// E4. PyTorch: a call that failed leaves its send function behind, and every later pass of the context hangs.
TEST_P(ReachabilityTest, ACallThatRaisedHoldsNoPassUp) {
  group_->server(1).On("raise", [](const Request& request) -> List {
    (void)Mul(TensorAt(Arguments(request), 0), TensorAt(Arguments(request), 0));
    throw std::runtime_error("this attempt was meant to fail");
  });
  EXPECT_EQ(ErrorOf([&] { CallWorker(worker(0), "worker1", "raise", ListOf(x_), In(context_)); }).code, GF_UNKNOWN);
  const Tensor used = Remote("worker1", In(context_), "aten::mul.Tensor", x_, other_);
  Backward(context_, {Sum(used)});
  EXPECT_EQ(ReadFloats(Gradient(context_, x_)), std::vector<float>({5, 7}));
}

// E4, with a call that the caller gave up and whose answer, with a tensor that requires grad, comes too late.
TEST_P(ReachabilityTest, ACallThatTimedOutHoldsNoPassUp) {
  const Queue queue = NewQueue();
  HandleQueue(worker(1), "slow", queue, 0);
  // However slow the machine is: once more, with more time, when it did not even arrive.
  std::optional<Entry> arrived;
  for (int64_t deadline = 20 * kMillisecond; !arrived && deadline < kPatience; deadline *= 2) {
    const Future slow = StartCall(worker(0), "worker1", "slow", ListOf(x_), In(context_).Deadline(deadline));
    EXPECT_EQ(ErrorOf([&] { Await(slow); }).code, GF_DEADLINE_EXCEEDED);
    arrived = NextIfAny(queue);
  }
  ASSERT_TRUE(arrived);
  const Entry& entry = *arrived;
  const Tensor retried = Remote("worker1", In(context_), "aten::mul.Tensor", x_, other_);
  Backward(context_, {Sum(retried)}, BackwardOptions().Retain());
  const Tensor late = TensorAt(Arguments(entry.request), 0);
  Reply(entry.request, ListOf(Mul(late, late)));
  Backward(context_, {Sum(retried)});
  EXPECT_EQ(ReadFloats(Gradient(context_, x_)), std::vector<float>({10, 14}));
}

// E13. PyTorch: the tensor that was sent waits for a gradient that no result can bring.
TEST_P(ReachabilityTest, ACallThatReturnsNoTensorHoldsNoPassUp) {
  group_->server(1).On("count", [](const Request& request) {
    const Tensor tensor = TensorAt(Arguments(request), 0);
    EXPECT_TRUE(RequiresGrad(tensor));
    return ListOf(Describe(tensor).numel);
  });
  const Tensor used = Remote("worker1", In(context_), "aten::mul.Tensor", x_, other_);
  EXPECT_EQ(IntAt(CallWorker(worker(0), "worker1", "count", ListOf(used), In(context_)), 0), 2);
  EXPECT_EQ(IntAt(CallWorker(worker(0), "worker1", "count", ListOf(x_), In(context_)), 0), 2);
  Backward(context_, {Sum(used)});
  EXPECT_EQ(ReadFloats(Gradient(context_, x_)), std::vector<float>({5, 7}));
}

// E5. PyTorch: the second pass waits for the send functions of the first forward.
TEST_P(ReachabilityTest, ForwardsAndBackwardsOfOneContextMayInterleave) {
  auto forward = [&](const std::string& to) { return Sum(Remote(to, In(context_), "aten::mul.Tensor", x_, other_)); };
  const Tensor first = forward("worker1"), second = forward("worker2");
  Backward(context_, {second});
  const Tensor third = forward("worker1");
  Backward(context_, {first});
  EXPECT_EQ(ReadFloats(Gradient(context_, x_)), std::vector<float>({10, 14}));
  Backward(context_, {third});
  EXPECT_EQ(ReadFloats(Gradient(context_, x_)), std::vector<float>({15, 21}));
}

// E7. PyTorch: a call made in a completion is in no context, and its result is cut from the graph.
TEST_P(ReachabilityTest, ACallMadeWhenAnotherHasEndedIsPartOfTheContext) {
  const Queue first_ended = NewQueue(), second_ended = NewQueue();
  Threads threads;
  threads.Start([&] {
    const Entry first = Next(first_ended);
    QueueCall(worker(0), "worker2", "aten::mul.Tensor", ListOf(TensorAt(first.results, 0), x_),
              In(context_).To(second_ended, 2));
  });
  QueueCall(worker(0), "worker1", "aten::mul.Tensor", ListOf(x_, other_), In(context_).To(first_ended, 1));
  const Entry second = Next(second_ended);
  threads.Join();
  Backward(context_, {Sum(TensorAt(second.results, 0))});
  EXPECT_EQ(ReadFloats(Gradient(context_, x_)), std::vector<float>({20, 42}));
}

// E8. PyTorch: a call of another thread is in no context; its input silently gets no gradient.
TEST_P(ReachabilityTest, CallsOfOtherThreadsArePartOfTheContext) {
  std::vector<Tensor> parts(8);
  Threads threads;
  for (size_t i = 0; i < parts.size(); ++i) {
    threads.Start([&, i] { parts[i] = Remote(group_->name(1 + i % 2), In(context_), "aten::mul.Tensor", x_, other_); });
  }
  threads.Join();
  Tensor sum = parts[0];
  for (size_t i = 1; i < parts.size(); ++i) sum = Add(sum, parts[i]);
  // On a thread that made none of the calls.
  threads.Start([&] { Backward(context_, {Sum(sum)}); });
  threads.Join();
  EXPECT_EQ(ReadFloats(Gradient(context_, x_)), std::vector<float>({40, 56}));
}

// PyTorch does not support it: send functions that a forward adds on a worker while a pass runs there are unknown to
// it.
TEST_P(ReachabilityTest, APassDoesNotWaitForAForwardThatStillRunsElsewhere) {
  const Queue queue = NewQueue();
  HandleQueue(worker(1), "slow", queue, 0);
  const Future slow = StartCall(worker(0), "worker1", "slow", ListOf(x_), In(context_));
  const Entry entry = Next(queue);
  // The handler is in the middle of it: it has called on, and made nodes of its own.
  const Tensor half = RemoteOp(worker(1), "worker2", CallOptions().Parent(entry.request), "aten::mul.Tensor",
                               TensorAt(Arguments(entry.request), 0), other_);
  Backward(context_, {Sum(Remote("worker1", In(context_), "aten::mul.Tensor", x_, other_))});
  EXPECT_EQ(ReadFloats(Gradient(context_, x_)), std::vector<float>({5, 7}));
  EXPECT_FALSE(IsDone(slow));
  Reply(entry.request, ListOf(half));
  Backward(context_, {Sum(TensorAt(Await(slow), 0))});
  EXPECT_EQ(ReadFloats(Gradient(context_, x_)), std::vector<float>({10, 14}));
}

// And a pass that runs while a forward adds to the graph of the same workers.
TEST_P(ReachabilityTest, APassRunsBesideAForwardOfItsContext) {
  std::atomic<bool> stop{false};
  std::vector<Tensor> others;
  Threads threads;
  threads.Start([&] {
    while (!stop) others.push_back(Remote("worker1", In(context_), "aten::mul.Tensor", x_, other_));
  });
  for (int i = 0; i < 50; ++i)
    Backward(context_, {Sum(Remote("worker1", In(context_), "aten::mul.Tensor", x_, other_))});
  stop = true;
  threads.Join();
  EXPECT_EQ(ReadFloats(Gradient(context_, x_)), std::vector<float>({250, 350}));
  if (!others.empty()) Backward(context_, {Sum(others.back())});
}

GF_OVER_ALL_WAYS(ReachabilityTest);

}  // namespace
}  // namespace gf
