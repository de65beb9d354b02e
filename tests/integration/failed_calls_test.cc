// Calls that fail, are made again, or come too late, and what is left of them. Each of these is a defect of PyTorch's
// RPC; docs/compared-with-pytorch.md lists them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "tests/integration/modes.h"

namespace gf {
namespace {

using ::testing::HasSubstr;

class FailedCallsTest : public TransportTest {};

int64_t Contexts(gf_worker* worker) { return Info(worker)["contexts"].get<int64_t>(); }

// B5. PyTorch: a retry after a message was really sent carries no bytes, since the first sending moved them away.
TEST_P(FailedCallsTest, ARetryCarriesTheWholeMessage) {
  Group group(transport(), {"caller", "callee"});
  const Queue queue = NewQueue();
  HandleQueue(group[1], "slow", queue, 0);
  const Tensor large = Random({200, 200}, 1), small = WithGrad(Floats({2}, {2, 3}));
  const List arguments = ListOf(large, "text", small, 7);
  const Context context = NewContext(group[0]);
  std::vector<Entry> unanswered;
  auto expect_whole = [&](const Request& request) {
    const List got = Arguments(request);
    ASSERT_EQ(Size(got), 4u);
    EXPECT_EQ(ReadFloats(TensorAt(got, 0)), ReadFloats(large));
    EXPECT_EQ(StringAt(got, 1), "text");
    EXPECT_EQ(ReadFloats(TensorAt(got, 2)), std::vector<float>({2, 3}));
    EXPECT_EQ(IntAt(got, 3), 7);
  };
  // Twice it arrives and nobody answers, until the caller gives it up; the third time somebody does.
  for (int attempt = 0; attempt < 2; ++attempt) {
    const Future lost = StartCall(group[0], "callee", "slow", arguments, In(context));
    unanswered.push_back(Next(queue));
    expect_whole(unanswered.back().request);
    Call(gf_future_cancel, lost);
    EXPECT_EQ(ErrorOf([&] { Await(lost); }).code, GF_CANCELLED);
  }
  const Future call = StartCall(group[0], "callee", "slow", arguments, In(context));
  const Entry entry = Next(queue);
  expect_whole(entry.request);
  Reply(entry.request, ListOf(Mul(TensorAt(Arguments(entry.request), 2), Floats({2}, {5, 7}))));
  Backward(context, {Sum(TensorAt(Await(call), 0))});
  EXPECT_EQ(ReadFloats(Gradient(context, small)), std::vector<float>({5, 7}));
}

// B6. PyTorch: a request that is processed after the clean-up brings its context back, and nobody ever releases it.
TEST_P(FailedCallsTest, CallsThatOutliveTheirContextDoNotReviveIt) {
  Group group(transport(), {"worker0", "worker1", "worker2"});
  for (size_t i = 0; i < group.size(); ++i) RegisterHandlers(group.server(i));
  const Tensor a = WithGrad(Random({3}, 1));
  for (int round = 0; round < 50; ++round) {
    const Context context = NewContext(group[0]);
    std::vector<Future> calls;
    for (int i = 0; i < 4; ++i) {
      calls.push_back(StartCall(group[0], "worker1", "nested", ListOf(a, a, ListOf("worker2")), In(context)));
    }
    Release(context);
    for (const Future& call : calls) {
      const Error error = ErrorOf([&] { Await(call); });
      EXPECT_TRUE(error.code == GF_OK || error.code == GF_NOT_FOUND || error.code == GF_CANCELLED) << error.description;
    }
  }
  for (size_t i = 0; i < group.size(); ++i) {
    EXPECT_TRUE(Eventually([&] { return Contexts(group[i]) == 0; })) << i << ": " << Contexts(group[i]);
  }
  EXPECT_TRUE(Eventually(NothingUnderWay));
}

// B7. PyTorch: the handlers of errors are made for the first remote reference that fails; a later failure ends up
// there.
TEST_P(FailedCallsTest, ErrorsOfCallsThatFailTogetherDoNotMix) {
  Group group(transport(), {"caller", "callee0", "callee1"});
  for (size_t i = 1; i < group.size(); ++i) {
    HandleDirect(group[i], "fail", [](Request request) {
      const int64_t number = IntAt(Arguments(request), 0);
      Fail(request, number % 2 == 0 ? GF_NOT_FOUND : GF_DATA_LOSS, "failure " + std::to_string(number));
    });
  }
  std::vector<Future> calls;
  for (int i = 0; i < 100; ++i) {
    calls.push_back(StartCall(group[0], group.name(1 + static_cast<size_t>(i / 2 % 2)), "fail", ListOf(i)));
  }
  for (int i = 99; i >= 0; --i) {
    const Error error = ErrorOf([&] { Await(calls[static_cast<size_t>(i)]); });
    EXPECT_EQ(error.code, i % 2 == 0 ? GF_NOT_FOUND : GF_DATA_LOSS) << i;
    EXPECT_EQ(error.root().message, "failure " + std::to_string(i));
    EXPECT_EQ(error.root().worker, "callee" + std::to_string(i / 2 % 2)) << i;
  }
}

// B17. PyTorch: the clean-up of a context is sent to a dead peer again and again for 74 minutes.
TEST_P(FailedCallsTest, TheCleanUpOfAContextDoesNotWaitForADeadPeer) {
  Group group(transport(), {"worker0", "worker1", "worker2"});
  const Tensor a = WithGrad(Random({3}, 1));
  {
    const Context context = NewContext(group[0]);
    const Tensor first = RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, a);
    (void)RemoteOp(group[0], "worker2", In(context), "aten::mul.Tensor", first, a);
    Call(gf_worker_abort, group[1]);
    Release(context);
  }
  EXPECT_TRUE(Eventually([&] { return Contexts(group[0]) == 0 && Contexts(group[2]) == 0; }))
      << "those that live are cleaned up";
  EXPECT_TRUE(Eventually(NothingUnderWay)) << "and nothing goes on being sent";
  const auto began = std::chrono::steady_clock::now();
  group.Close();
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(5));
}

// B22. PyTorch: what a future runs is torn down at shutdown; waiting for one afterwards is an error of the program.
TEST_P(FailedCallsTest, FuturesMayBeWaitedForAfterTheirWorkerHasClosed) {
  Group group(transport(), {"caller", "callee"});
  const Queue queue = NewQueue();
  HandleQueue(group[1], "slow", queue, 0);
  const Tensor a = WithGrad(Floats({2}, {2, 3}));
  Future ended, pending, pass;
  {
    const Context context = NewContext(group[0]);
    ended = StartCall(group[0], "callee", "aten::mul.Tensor", ListOf(a, a), In(context));
    pass = StartBackward(context, {Sum(TensorAt(Await(ended), 0))});
    Await(pass);
    pending = StartCall(group[0], "callee", "slow", NewList());
  }
  const Entry entry = Next(queue);
  EXPECT_EQ(ErrorOf([&] { Call(gf_worker_close, group[0], kMillisecond); }).code, GF_DEADLINE_EXCEEDED);
  group.Abort();
  EXPECT_EQ(ReadFloats(TensorAt(Await(ended), 0)), std::vector<float>({4, 9}));
  Await(pass);
  for (int i = 0; i < 2; ++i) {
    const Error error = ErrorOf([&] { Await(pending); });
    EXPECT_EQ(error.code, GF_CLOSED) << error.description;
    EXPECT_THAT(error.message, HasSubstr("caller"));
  }
}

GF_OVER_ALL_WAYS(FailedCallsTest);

}  // namespace
}  // namespace gf
