// Calls and requests: every way to make one and to answer one, cancel, deadlines that travel, and what a callback may
// not do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <thread>

#include "tests/integration/modes.h"

namespace gf {
namespace {

using ::testing::HasSubstr;

class CallsTest : public TransportTest {
 protected:
  void SetUp() override {
    TransportTest::SetUp();
    group_ = std::make_unique<Group>(transport(), std::vector<std::string>{"alice", "bob", "carol"},
                                     Settings{{"worker.threads", "1"}});
  }
  void TearDown() override {
    group_.reset();
    TransportTest::TearDown();
  }
  gf_worker* alice() { return (*group_)[0]; }
  gf_worker* bob() { return (*group_)[1]; }

  std::unique_ptr<Group> group_;
};

TEST_P(CallsTest, ValuesOfEveryKindArriveAsTheyWere) {
  group_->server(1).On("echo", [](const Request& request) { return Arguments(request); });
  const List echoed = CallWorker(alice(), "bob", "echo",
                                 ListOf(nullptr, true, 7, -2.5, "text \xc3\xa9", Bytes{std::string("a\0b", 3)},
                                        Floats({2}, {1, 2}), ListOf(1, ListOf("deep"))));
  ASSERT_EQ(Size(echoed), 8u);
  EXPECT_EQ(gf_list_kind(echoed, 0), GF_VALUE_NONE);
  EXPECT_TRUE(BoolAt(echoed, 1));
  EXPECT_EQ(IntAt(echoed, 2), 7);
  EXPECT_EQ(DoubleAt(echoed, 3), -2.5);
  EXPECT_EQ(StringAt(echoed, 4), "text \xc3\xa9");
  EXPECT_EQ(gf_list_kind(echoed, 5), GF_VALUE_BYTES);
  EXPECT_EQ(ReadFloats(TensorAt(echoed, 6)), (std::vector<float>{1, 2}));
  EXPECT_EQ(StringAt(ListAt(ListAt(echoed, 7), 1), 0), "deep");
}

TEST_P(CallsTest, ThousandsOfTensorsTravelInOneCall) {
  group_->server(1).On("count", [](const Request& request) {
    const List tensors = ListAt(Arguments(request), 0);
    return ListOf(static_cast<int64_t>(Size(tensors)), Sum(TensorAt(tensors, Size(tensors) - 1)));
  });
  const Tensor ones = Floats({256}, std::vector<float>(256, 1));
  const List results = CallWorker(alice(), "bob", "count", ListOf(std::vector<Tensor>(10000, ones)));
  EXPECT_EQ(IntAt(results, 0), 10000);
  EXPECT_EQ(ReadFloats(TensorAt(results, 1)), (std::vector<float>{256}));
}

TEST_P(CallsTest, ADirectHandlerMayAnswerLaterFromAnotherThread) {
  std::atomic<bool> dropped{false};
  std::thread later;
  HandleDirect(
      bob(), "later",
      [&later](Request request) {
        later = std::thread([request = std::move(request)] { Reply(request, ListOf(Caller(request), Name(request))); });
      },
      [&dropped] { dropped = true; });
  const List results = CallWorker(alice(), "bob", "later", NewList());
  later.join();
  EXPECT_EQ(StringAt(results, 0), "alice");
  EXPECT_EQ(StringAt(results, 1), "later");
  EXPECT_FALSE(dropped);
  Unhandle(bob(), "later");
  EXPECT_TRUE(Eventually([&] { return dropped.load(); }));
  EXPECT_EQ(ErrorOf([&] { CallWorker(alice(), "bob", "later", NewList()); }).code, GF_NOT_FOUND);
}

TEST_P(CallsTest, RequestsArriveInAQueueWithTheirToken) {
  const Queue queue = NewQueue();
  HandleQueue(bob(), "queued", queue, 42);
  const Future future = StartCall(alice(), "bob", "queued", ListOf(5));
  const Entry entry = Next(queue);
  EXPECT_EQ(entry.kind, GF_ENTRY_REQUEST);
  EXPECT_EQ(entry.token, 42u);
  EXPECT_EQ(IntAt(Arguments(entry.request), 0), 5);
  EXPECT_FALSE(IsDone(future));
  Reply(entry.request, ListOf(6));
  EXPECT_EQ(IntAt(Await(future), 0), 6);
  EXPECT_EQ(IntAt(Await(future), 0), 6);  // it may be taken again
}

TEST_P(CallsTest, CompletionsArriveInAQueueThatCanBePolled) {
  RegisterHandlers(group_->server(1));
  const Queue queue = NewQueue();
  int32_t fd = -1;
  Call(gf_queue_fd, queue, &fd);
  struct pollfd poll_for = {fd, POLLIN, 0};
  EXPECT_EQ(poll(&poll_for, 1, 0), 0);
  QueueCall(alice(), "bob", "contexts", NewList(), CallOptions().To(queue, 7));
  EXPECT_EQ(poll(&poll_for, 1, static_cast<int>(kPatience / kMillisecond)), 1);
  const Entry good = Next(queue);
  EXPECT_EQ(good.kind, GF_ENTRY_COMPLETION);
  EXPECT_EQ(good.token, 7u);
  EXPECT_EQ(IntAt(good.results, 0), 0);
  EXPECT_EQ(poll(&poll_for, 1, 0), 0);
  QueueCall(alice(), "bob", "nothing", NewList(), CallOptions().To(queue, 8));
  const Entry bad = Next(queue);
  EXPECT_EQ(bad.token, 8u);
  EXPECT_EQ(bad.error.code, GF_NOT_FOUND);
  Call(gf_queue_wake, queue, uintptr_t{9});
  EXPECT_EQ(Next(queue).kind, GF_ENTRY_WAKE);
}

TEST_P(CallsTest, ACancelEndsTheCallAndReachesTheCallee) {
  const Queue queue = NewQueue();
  HandleQueue(bob(), "slow", queue, 1);
  const Future future = StartCall(alice(), "bob", "slow", NewList());
  const Entry entry = Next(queue);
  EXPECT_EQ(gf_request_is_cancelled(entry.request), 0);
  Call(gf_future_cancel, future);
  EXPECT_EQ(ErrorOf([&] { Await(future); }).code, GF_CANCELLED);
  EXPECT_TRUE(Eventually([&] { return gf_request_is_cancelled(entry.request) == 1; }));
  Reply(entry.request, NewList());  // nobody hears it, and it does no harm
}

TEST_P(CallsTest, ACancelReachesTheCallsThatHelpToAnswer) {
  const Queue middle = NewQueue();
  const Queue last = NewQueue();
  HandleQueue(bob(), "middle", middle, 1);
  HandleQueue((*group_)[2], "last", last, 2);
  const Future future = StartCall(alice(), "bob", "middle", NewList());
  const Entry at_bob = Next(middle);
  const Future nested = StartCall(bob(), "carol", "last", NewList(), CallOptions().Parent(at_bob.request));
  const Entry at_carol = Next(last);
  Call(gf_future_cancel, future);
  EXPECT_EQ(ErrorOf([&] { Await(nested); }).code, GF_CANCELLED);
  EXPECT_TRUE(Eventually([&] { return gf_request_is_cancelled(at_carol.request) == 1; }));
}

TEST_P(CallsTest, TheTimeLeftTravelsWithNestedCalls) {
  const Queue middle = NewQueue();
  const Queue last = NewQueue();
  HandleQueue(bob(), "middle", middle, 1);
  HandleQueue((*group_)[2], "last", last, 2);
  const Future future = StartCall(alice(), "bob", "middle", NewList(), CallOptions().Deadline(kPatience));
  const Entry at_bob = Next(middle);
  EXPECT_LE(gf_request_time_left(at_bob.request), kPatience);
  EXPECT_GT(gf_request_time_left(at_bob.request), 0);
  const Future nested =
      StartCall(bob(), "carol", "last", NewList(), CallOptions().Parent(at_bob.request).Deadline(GF_NO_DEADLINE));
  const Entry at_carol = Next(last);
  EXPECT_LE(gf_request_time_left(at_carol.request), kPatience);
  Reply(at_carol.request, NewList());
  Await(nested);
  Reply(at_bob.request, NewList());
  Await(future);
}

TEST_P(CallsTest, ACallWithoutADeadlineSaysSo) {
  const Queue queue = NewQueue();
  HandleQueue(bob(), "f", queue, 1);
  const Future future = StartCall(alice(), "bob", "f", NewList(), CallOptions().Deadline(GF_NO_DEADLINE));
  const Entry entry = Next(queue);
  EXPECT_EQ(gf_request_time_left(entry.request), GF_NO_DEADLINE);
  Reply(entry.request, NewList());
  Await(future);
}

TEST_P(CallsTest, TheGradModeTravelsAndIsInherited) {
  const Queue queue = NewQueue();
  HandleQueue(bob(), "mode", queue, 1);
  const Queue nested_queue = NewQueue();
  HandleQueue((*group_)[2], "mode", nested_queue, 2);
  const Context context = NewContext(alice());
  const Tensor leaf = WithGrad(Floats({1}, {2}));
  const Future future = StartCall(alice(), "bob", "mode", ListOf(leaf), In(context).NoGrad());
  const Entry at_bob = Next(queue);
  EXPECT_EQ(gf_request_grad(at_bob.request), GF_GRAD_OFF);
  EXPECT_FALSE(RequiresGrad(TensorAt(Arguments(at_bob.request), 0)));
  const Future nested = StartCall(bob(), "carol", "mode", ListOf(leaf), CallOptions().Parent(at_bob.request));
  const Entry at_carol = Next(nested_queue);
  EXPECT_EQ(gf_request_grad(at_carol.request), GF_GRAD_OFF);
  EXPECT_EQ(gf_context_id(ContextOf(at_carol.request)), gf_context_id(context));
  Reply(at_carol.request, NewList());
  Await(nested);
  Reply(at_bob.request, ListOf(leaf));
  EXPECT_FALSE(RequiresGrad(TensorAt(Await(future), 0)));
}

TEST_P(CallsTest, BlockingWithinADirectCallbackIsRefusedNotADeadlock) {
  Error sync, wait, next;
  HandleDirect(bob(), "blocks", [&](Request request) {
    sync = ErrorOf([&] { CallWorker(bob(), "alice", "f", NewList()); });
    const Future future = StartCall(bob(), "alice", "aten::neg", ListOf(Floats({1}, {1})));
    if (!IsDone(future)) wait = ErrorOf([&] { Call(gf_future_wait, future, kPatience); });
    next = ErrorOf([&] { Next(NewQueue(), kSecond); });
    Reply(request, NewList());
  });
  CallWorker(alice(), "bob", "blocks", NewList());
  EXPECT_EQ(sync.code, GF_REENTRANT);
  EXPECT_THAT(sync.message, HasSubstr("gf_call_sync"));
  EXPECT_TRUE(wait.code == GF_REENTRANT || wait.code == GF_OK) << wait.description;
  EXPECT_EQ(next.code, GF_REENTRANT);
}

TEST_P(CallsTest, OneThreadIsEnoughForDeepNesting) {
  // Each hop answers when the next one has answered, without holding a thread.
  std::atomic<int> deepest{0};
  std::vector<std::thread> waiting;
  auto& server_a = group_->server(0, 70);
  auto& server_b = group_->server(1, 70);
  auto hop = [&deepest](gf_worker* self, const std::string& other) {
    return [&deepest, self, other](const Request& request) {
      const int64_t depth = IntAt(Arguments(request), 0);
      if (depth == 0) return ListOf(deepest.load());
      ++deepest;
      return CallWorker(self, other, "hop", ListOf(depth - 1), CallOptions().Parent(request));
    };
  };
  server_a.On("hop", hop(alice(), "bob"));
  server_b.On("hop", hop(bob(), "alice"));
  EXPECT_EQ(IntAt(CallWorker(alice(), "bob", "hop", ListOf(64)), 0), 64);
}

TEST_P(CallsTest, AWorkerCallsItselfLikeAnyOther) {
  RegisterHandlers(group_->server(0));
  EXPECT_EQ(IntAt(CallWorker(alice(), "alice", "contexts", NewList()), 0), 0);
  EXPECT_EQ(ReadFloats(RemoteOp(alice(), "alice", {}, "aten::neg", Floats({2}, {1, 2}))), (std::vector<float>{-1, -2}));
}

TEST_P(CallsTest, AWorkerIsCalledByItsIdToo) {
  const List arguments = ListOf(Floats({1}, {3}));
  gf_call call = {};
  call.struct_size = sizeof(call);
  call.kind = GF_CALL_OPERATOR;
  call.to_id = 2;
  call.name = "aten::neg";
  call.name_length = 9;
  call.arguments = arguments;
  List results;
  Call(gf_call_sync, alice(), &call, results.out());
  EXPECT_EQ(ReadFloats(TensorAt(results, 0)), (std::vector<float>{-3}));
}

TEST_P(CallsTest, AStructOfANewerCallerIsRefusedUnlessItsTailIsZero) {
  struct {
    gf_call call;
    uint64_t tail;
  } newer = {};
  newer.call.struct_size = sizeof(newer);
  newer.call.to = "bob";
  newer.call.to_length = 3;
  newer.call.name = "f";
  newer.call.name_length = 1;
  List results;
  EXPECT_EQ(ErrorOf([&] { Call(gf_call_sync, alice(), &newer.call, results.out()); }).code, GF_NOT_FOUND);
  newer.tail = 1;
  EXPECT_EQ(ErrorOf([&] { Call(gf_call_sync, alice(), &newer.call, results.out()); }).code, GF_UNSUPPORTED);
}

GF_OVER_ALL_TRANSPORTS(CallsTest);

}  // namespace
}  // namespace gf
