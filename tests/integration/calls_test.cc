// Calls: by futures and queues, with deadlines, cancelled, nested, of a worker to itself, back and forth.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>

#include "tests/support/c_abi/group.h"
#include "tests/support/c_abi/handlers.h"

namespace gf {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class CallsTest : public TransportTest {};

TEST_P(CallsTest, AFutureEndsOnceAndMayBeTakenAgain) {
  Group group(transport(), {"caller", "callee"});
  const Queue queue = NewQueue();
  HandleQueue(group[1], "wait", queue, 0);
  const Future call = StartCall(group[0], "callee", "wait", NewList());
  EXPECT_EQ(ErrorOf([&] { Call(gf_future_take, call, nullptr); }).code, GF_FAILED_PRECONDITION);
  const Entry entry = Next(queue);
  const Error still = ErrorOf([&] { Call(gf_future_wait, call, kMillisecond); });
  EXPECT_EQ(still.code, GF_DEADLINE_EXCEEDED);
  EXPECT_FALSE(IsDone(call)) << "the wait ended, the call did not";
  Reply(entry.request, ListOf(5));
  EXPECT_EQ(IntAt(Await(call), 0), 5);
  EXPECT_EQ(IntAt(Await(call), 0), 5);
  EXPECT_TRUE(IsDone(call));
}

TEST_P(CallsTest, CompletionsComeInTheQueueWithTheirTokens) {
  Group group(transport(), {"caller", "callee"});
  HandleDirect(group[1], "echo", [](Request request) { Reply(request, Arguments(request)); });
  const Queue queue = NewQueue();
  constexpr int kCalls = 50;
  for (int i = 0; i < kCalls; ++i) {
    QueueCall(group[0], "callee", i % 10 == 9 ? "nothing" : "echo", ListOf(i),
              CallOptions().To(queue, static_cast<uintptr_t>(i)));
  }
  std::set<uintptr_t> tokens;
  for (int i = 0; i < kCalls; ++i) {
    const Entry entry = Next(queue);
    EXPECT_EQ(entry.kind, GF_ENTRY_COMPLETION);
    tokens.insert(entry.token);
    if (entry.token % 10 == 9) {
      EXPECT_EQ(entry.error.code, GF_NOT_FOUND);
      EXPECT_EQ(entry.results.get(), nullptr);
    } else {
      EXPECT_EQ(entry.error.code, GF_OK);
      EXPECT_EQ(IntAt(entry.results, 0), static_cast<int64_t>(entry.token));
    }
  }
  EXPECT_EQ(tokens.size(), static_cast<size_t>(kCalls));
}

// One call may deliver to both.
TEST_P(CallsTest, AQueueAndAFutureGetTheSameOutcome) {
  Group group(transport(), {"caller", "callee"});
  HandleDirect(group[1], "echo", [](Request request) { Reply(request, Arguments(request)); });
  const Queue queue = NewQueue();
  const Future call = StartCall(group[0], "callee", "echo", ListOf(3), CallOptions().To(queue, 1));
  EXPECT_EQ(IntAt(Next(queue).results, 0), 3);
  EXPECT_EQ(IntAt(Await(call), 0), 3);
}

TEST_P(CallsTest, CancelEndsTheCallAndReachesTheCallee) {
  Group group(transport(), {"caller", "callee"});
  const Queue queue = NewQueue();
  HandleQueue(group[1], "wait", queue, 0);
  const Future call = StartCall(group[0], "callee", "wait", NewList());
  const Entry entry = Next(queue);
  EXPECT_EQ(gf_request_is_cancelled(entry.request), 0);
  Call(gf_future_cancel, call);
  EXPECT_EQ(ErrorOf([&] { Await(call); }).code, GF_CANCELLED);
  EXPECT_TRUE(Eventually([&] { return gf_request_is_cancelled(entry.request) == 1; }));
  EXPECT_EQ(gf_live_objects(GF_LIVE_CALLS), 0);
  // Nobody waits for this answer.
  Reply(entry.request, ListOf(1));
  Call(gf_future_cancel, call);
  EXPECT_EQ(ErrorOf([&] { Await(call); }).code, GF_CANCELLED);
}

TEST_P(CallsTest, CancellingWhatHasEndedChangesNothing) {
  Group group(transport(), {"caller", "callee"});
  HandleDirect(group[1], "echo", [](Request request) { Reply(request, Arguments(request)); });
  const Future call = StartCall(group[0], "callee", "echo", ListOf(3));
  Await(call);
  Call(gf_future_cancel, call);
  EXPECT_EQ(IntAt(Await(call), 0), 3);
}

TEST_P(CallsTest, AHandlerThatNeverAnswersMeetsTheDeadline) {
  Group group(transport(), {"caller", "callee"});
  const Queue queue = NewQueue();
  HandleQueue(group[1], "never", queue, 0);
  const Error error =
      ErrorOf([&] { CallWorker(group[0], "callee", "never", NewList(), CallOptions().Deadline(50 * kMillisecond)); });
  EXPECT_EQ(error.code, GF_DEADLINE_EXCEEDED);
  EXPECT_THAT(error.message, AllOf(HasSubstr("never"), HasSubstr("callee")));
  EXPECT_EQ(error.operation, "never");
  EXPECT_EQ(error.peer, "callee");
  EXPECT_GE(error.elapsed_ns, 45 * kMillisecond) << "from when it was sent, which is a little later than the call";
  EXPECT_LT(error.elapsed_ns, kPatience);
  EXPECT_NE(error.retry, GF_RETRY_NEVER);
  const Entry entry = Next(queue);
  EXPECT_TRUE(Eventually([&] { return gf_request_is_cancelled(entry.request) == 1; }));
  // Counted from when the call arrived.
  EXPECT_TRUE(Eventually([&] { return gf_request_time_left(entry.request) <= 0; }));
  Reply(entry.request, NewList());
}

TEST_P(CallsTest, CallsWithoutADeadlineOfTheirOwnHaveTheConfiguredOne) {
  Group group(transport(), {"caller", "callee"}, {{"call.timeout", "50ms"}});
  const Queue queue = NewQueue();
  HandleQueue(group[1], "never", queue, 0);
  // One that wants none has none. It also makes the connection, which may take longer.
  const Future patient = StartCall(group[0], "callee", "never", NewList(), CallOptions().Deadline(GF_NO_DEADLINE));
  const Entry entry = Next(queue);
  EXPECT_EQ(gf_request_time_left(entry.request), GF_NO_DEADLINE);
  Reply(entry.request, ListOf(1));
  EXPECT_EQ(IntAt(Await(patient), 0), 1);

  const Error error = ErrorOf([&] { CallWorker(group[0], "callee", "never", NewList()); });
  EXPECT_EQ(error.code, GF_DEADLINE_EXCEEDED);
  Reply(Next(queue).request, NewList());
}

TEST_P(CallsTest, NestedCallsInheritTheDeadline) {
  Group group(transport(), {"first", "second", "third"});
  const Queue queue = NewQueue();
  HandleQueue(group[2], "last", queue, 0);
  std::atomic<int64_t> left_between{0};
  group.server(1).On("between", [&](const Request& request) {
    left_between = gf_request_time_left(request);
    // A deadline of its own that is later than the parent's does not count.
    return CallWorker(group[1], "third", "last", NewList(), CallOptions().Parent(request).Deadline(3600 * kSecond));
  });
  const Future call = StartCall(group[0], "second", "between", NewList(), CallOptions().Deadline(10 * kSecond));
  const Entry entry = Next(queue);
  const int64_t left = gf_request_time_left(entry.request);
  EXPECT_GT(left, 0);
  EXPECT_LE(left, left_between);
  EXPECT_LE(left_between, 10 * kSecond);
  Reply(entry.request, ListOf(4));
  EXPECT_EQ(IntAt(Await(call), 0), 4);
}

TEST_P(CallsTest, CancelReachesNestedCalls) {
  Group group(transport(), {"first", "second", "third"});
  const Queue queue = NewQueue();
  HandleQueue(group[2], "last", queue, 0);
  std::atomic<int32_t> seen{GF_OK};
  group.server(1).On("between", [&](const Request& request) {
    const Error error = ErrorOf([&] {
      CallWorker(group[1], "third", "last", NewList(), CallOptions().Parent(request).Deadline(GF_NO_DEADLINE));
    });
    seen = error.code;
    return NewList();
  });
  const Future call = StartCall(group[0], "second", "between", NewList());
  const Entry entry = Next(queue);
  Call(gf_future_cancel, call);
  EXPECT_TRUE(Eventually([&] { return gf_request_is_cancelled(entry.request) == 1; }));
  EXPECT_TRUE(Eventually([&] { return seen == GF_CANCELLED; }));
  Reply(entry.request, NewList());
}

TEST_P(CallsTest, ACallOfARequestWhoseTimeIsUpIsRefused) {
  Group group(transport(), {"caller", "callee"});
  const Queue queue = NewQueue();
  HandleQueue(group[1], "slow", queue, 0);
  const Future call = StartCall(group[0], "callee", "slow", NewList(), CallOptions().Deadline(20 * kMillisecond));
  const Entry entry = Next(queue);
  EXPECT_TRUE(Eventually([&] { return gf_request_time_left(entry.request) <= 0; }));
  const Error error =
      ErrorOf([&] { CallWorker(group[1], "caller", "anything", NewList(), CallOptions().Parent(entry.request)); });
  EXPECT_EQ(error.code, GF_DEADLINE_EXCEEDED);
  EXPECT_THAT(error.message, HasSubstr("caller"));
  EXPECT_EQ(ErrorOf([&] { Await(call); }).code, GF_DEADLINE_EXCEEDED);
}

TEST_P(CallsTest, AParentGivesItsContextAndItsGradMode) {
  Group group(transport(), {"first", "second", "third"});
  std::atomic<int64_t> context_id{-1};
  std::atomic<uint32_t> grad{9};
  HandleDirect(group[2], "last", [&](Request request) {
    const Context context = ContextOf(request);
    context_id = context.get() == nullptr ? 0 : gf_context_id(context);
    grad = gf_request_grad(request);
    Reply(request, NewList());
  });
  group.server(1).On("between", [&](const Request& request) {
    return CallWorker(group[1], "third", "last", NewList(), CallOptions().Parent(request));
  });
  // So that its id is not 0.
  const Context unused = NewContext(group[1]);
  const Context context = NewContext(group[0]), second = NewContext(group[0]);
  CallWorker(group[0], "second", "between", NewList(), In(second));
  EXPECT_EQ(context_id, gf_context_id(second));
  EXPECT_EQ(grad, GF_GRAD_RECORD);
  CallWorker(group[0], "second", "between", NewList(), In(second).NoGrad());
  EXPECT_EQ(context_id, gf_context_id(second));
  EXPECT_EQ(grad, GF_GRAD_OFF);
  CallWorker(group[0], "second", "between", NewList());
  EXPECT_EQ(context_id, 0);
}

TEST_P(CallsTest, AWorkerCallsItself) {
  Group group(transport(), {"alone"});
  HandleDirect(group[0], "echo", [](Request request) {
    EXPECT_EQ(Caller(request), "alone");
    Reply(request, Arguments(request));
  });
  EXPECT_EQ(StringAt(CallWorker(group[0], "alone", "echo", ListOf("hello")), 0), "hello");
  const Tensor sum = RemoteOp(group[0], "alone", {}, "aten::add.Tensor", Floats({2}, {1, 2}), Floats({2}, {3, 4}));
  EXPECT_EQ(ReadFloats(sum), std::vector<float>({4, 6}));
  EXPECT_EQ(ErrorOf([&] { CallWorker(group[0], "alone", "nothing", NewList()); }).code, GF_NOT_FOUND);
}

TEST_P(CallsTest, WorkersAreCalledByIdToo) {
  Group group(transport(), {"caller", "callee"});
  HandleDirect(group[1], "echo", [](Request request) { Reply(request, Arguments(request)); });
  gf_call call{};
  call.struct_size = sizeof(call);
  call.to_id = 1;
  call.name = "echo";
  call.name_length = 4;
  List results;
  Call(gf_call_sync, group[0], &call, results.out());
  EXPECT_EQ(Size(results), 0u);
  call.to_id = 5;
  const Error error = ErrorOf([&] { Call(gf_call_sync, group[0], &call, results.out()); });
  EXPECT_EQ(error.code, GF_NOT_FOUND);
  EXPECT_THAT(error.message, HasSubstr("5"));
}

// Each calls the other, which calls back, many times at once, with one thread of the library on either side.
TEST_P(CallsTest, NestedCallsBackAndForthNeedNoMoreThreadsThanOne) {
  Group group(transport(), {"ping", "pong"}, {{"worker.threads", "1"}});
  for (size_t i : {0, 1}) {
    gf_worker* self = group[i];
    const std::string other = group.name(1 - i);
    // Blocks threads of its own, one for each level: at most 4 * 6 + 4 * 5 on a side.
    group.server(i, 48).On("down", [self, other](const Request& request) {
      const int64_t depth = IntAt(Arguments(request), 0);
      if (depth == 0) return ListOf(0);
      return ListOf(1 + IntAt(CallWorker(self, other, "down", ListOf(depth - 1), CallOptions().Parent(request)), 0));
    });
  }
  std::vector<Future> calls;
  for (int i = 0; i < 4; ++i) calls.push_back(StartCall(group[0], "pong", "down", ListOf(10)));
  for (int i = 0; i < 4; ++i) calls.push_back(StartCall(group[1], "ping", "down", ListOf(10)));
  for (const Future& call : calls) EXPECT_EQ(IntAt(Await(call), 0), 10);
}

TEST_P(CallsTest, ManyThreadsCallAtOnce) {
  Group group(transport(), {"caller", "callee"});
  HandleDirect(group[1], "echo", [](Request request) { Reply(request, Arguments(request)); });
  Threads threads;
  for (int thread = 0; thread < 8; ++thread) {
    threads.Start([&, thread] {
      for (int i = 0; i < 50; ++i) {
        EXPECT_EQ(IntAt(CallWorker(group[0], "callee", "echo", ListOf(1000 * thread + i)), 0), 1000 * thread + i);
      }
    });
  }
  threads.Join();
}

// 1 KiB of a large storage with gaps: its elements arrive, and only they travel.
TEST_P(CallsTest, AStridedViewOfALargeStorageIsReceivedRight) {
  Group group(transport(), {"caller", "callee"}, {{"limits.message_bytes", "65536"}});
  const Tensor large = Random({1024, 1024}, 1);
  const Tensor view = Op("aten::as_strided", large, Shape{16, 16}, Shape{3 * 1024, 5}, 100);
  HandleDirect(group[1], "echo", [](Request request) { Reply(request, Arguments(request)); });
  for (const Tensor& sent : {view, Op("aten::t", view)}) {
    const Tensor got = TensorAt(CallWorker(group[0], "callee", "echo", ListOf(sent)), 0);
    EXPECT_EQ(ShapeOf(got), Shape({16, 16}));
    EXPECT_EQ(ReadFloats(got), ReadFloats(sent));
  }
}

TEST_P(CallsTest, MemoryOfTheCallerIsReleasedWhenTheLastCallOverItHasEnded) {
  Group group(transport(), {"caller", "callee"});
  HandleDirect(group[1], "echo", [](Request request) { Reply(request, Arguments(request)); });
  std::atomic<int> released{0};
  std::vector<float> values(1 << 16, 1.5f);
  {
    const int64_t size = static_cast<int64_t>(values.size());
    gf_memory memory{};
    memory.struct_size = sizeof(memory);
    memory.dtype_code = GF_DTYPE_FLOAT;
    memory.dtype_bits = 32;
    memory.data = values.data();
    memory.shape = &size;
    memory.ndim = 1;
    memory.deleter = [](uintptr_t token) { ++*reinterpret_cast<std::atomic<int>*>(token); };
    memory.deleter_token = reinterpret_cast<uintptr_t>(&released);
    Tensor tensor;
    Call(gf_tensor_from_memory, &memory, tensor.out());
    EXPECT_EQ(ReadFloats(TensorAt(CallWorker(group[0], "callee", "echo", ListOf(tensor)), 0)), values);
  }
  EXPECT_TRUE(Eventually([&] { return released == 1; }));
}

TEST_P(CallsTest, MoreCallsThanTheLimitAreRefused) {
  Group group(transport(), {"caller", "callee"}, {{"limits.calls_per_peer", "2"}, {"call.when_full", "fail"}});
  const Queue queue = NewQueue();
  HandleQueue(group[1], "wait", queue, 0);
  const Future first = StartCall(group[0], "callee", "wait", NewList());
  const Future second = StartCall(group[0], "callee", "wait", NewList());
  const Error error = ErrorOf([&] { CallWorker(group[0], "callee", "wait", NewList()); });
  EXPECT_EQ(error.code, GF_RESOURCE_EXHAUSTED);
  EXPECT_THAT(error.message, AllOf(HasSubstr("limits.calls_per_peer"), HasSubstr("callee")));
  EXPECT_EQ(error.retry, GF_RETRY_SAME_PEER);
  for (int i = 0; i < 2; ++i) Reply(Next(queue).request, NewList());
  Await(first);
  Await(second);
}

// Each caller keeps to the callee's window by itself; together they come to more.
TEST_P(CallsTest, MoreRequestsThanTheLimitAreRefusedByTheCallee) {
  Group group(transport(), {"caller", "callee", "other"}, {{"limits.requests", "1"}});
  const Queue queue = NewQueue();
  HandleQueue(group[1], "wait", queue, 0);
  const Future first = StartCall(group[0], "callee", "wait", NewList());
  const Entry entry = Next(queue);
  const Error error = ErrorOf([&] { CallWorker(group[2], "callee", "wait", NewList()); });
  EXPECT_EQ(error.code, GF_RESOURCE_EXHAUSTED);
  EXPECT_EQ(error.worker, "callee");
  EXPECT_THAT(error.message, HasSubstr("limits.requests"));
  Reply(entry.request, NewList());
  Await(first);
}

GF_OVER_ALL_WAYS(CallsTest);

}  // namespace
}  // namespace gf
