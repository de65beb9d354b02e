// Handlers and requests: by queue and by direct callback, answered at once, later, from other threads, badly or never.
#include "tests/support/c_abi/handlers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "tests/support/c_abi/group.h"

namespace gf {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class HandlersTest : public TransportTest {};

// Holds what one thread hands to another.
template <class Value>
class Slot {
 public:
  void Put(Value value) {
    std::lock_guard lock(mutex_);
    values_.push_back(std::move(value));
    filled_.notify_one();
  }
  Value Take() {
    std::unique_lock lock(mutex_);
    if (!filled_.wait_for(lock, std::chrono::nanoseconds(kPatience), [this] { return !values_.empty(); })) {
      throw std::runtime_error("nothing came in time");
    }
    Value value = std::move(values_.front());
    values_.erase(values_.begin());
    return value;
  }

 private:
  std::mutex mutex_;
  std::condition_variable filled_;
  std::vector<Value> values_;
};

TEST_P(HandlersTest, ADirectHandlerAnswersOnTheSpot) {
  Group group(transport(), {"caller", "callee"});
  HandleDirect(group[1], "double", [](Request request) {
    EXPECT_EQ(Name(request), "double");
    EXPECT_EQ(Caller(request), "caller");
    EXPECT_EQ(gf_request_grad(request), GF_GRAD_RECORD);
    EXPECT_EQ(ContextOf(request).get(), nullptr);
    Reply(request, ListOf(2 * IntAt(Arguments(request), 0)));
  });
  EXPECT_EQ(IntAt(CallWorker(group[0], "callee", "double", ListOf(21)), 0), 42);
}

TEST_P(HandlersTest, AQueueHandlerBringsItsTokenAndIsAnsweredWhenItIsTaken) {
  Group group(transport(), {"caller", "callee"});
  const Queue queue = NewQueue();
  HandleQueue(group[1], "double", queue, 7);
  HandleQueue(group[1], "triple", queue, 8);
  const Future twice = StartCall(group[0], "callee", "double", ListOf(21));
  {
    const Entry entry = Next(queue);
    EXPECT_EQ(entry.kind, GF_ENTRY_REQUEST);
    EXPECT_EQ(entry.token, 7u);
    EXPECT_EQ(entry.error.code, GF_OK);
    EXPECT_EQ(entry.results.get(), nullptr);
    EXPECT_EQ(Name(entry.request), "double");
    EXPECT_FALSE(IsDone(twice));
    Reply(entry.request, ListOf(2 * IntAt(Arguments(entry.request), 0)));
  }
  EXPECT_EQ(IntAt(Await(twice), 0), 42);
  const Future thrice = StartCall(group[0], "callee", "triple", ListOf(14));
  const Entry entry = Next(queue);
  EXPECT_EQ(entry.token, 8u);
  Reply(entry.request, ListOf(3 * IntAt(Arguments(entry.request), 0)));
  EXPECT_EQ(IntAt(Await(thrice), 0), 42);
}

TEST_P(HandlersTest, ValuesOfEveryKindArriveAsTheyWereSent) {
  Group group(transport(), {"caller", "callee"});
  HandleDirect(group[1], "echo", [](Request request) { Reply(request, Arguments(request)); });
  const std::string binary("\0\xff\x01", 3);
  const List sent = ListOf(nullptr, true, false, int64_t{-5}, 2.5, "text \xc3\xa9", Bytes{binary},
                           Floats({2, 2}, {1, 2, 3, 4}), ListOf(1, ListOf("deep")), NewList(), "");
  const List got = CallWorker(group[0], "callee", "echo", sent);
  ASSERT_EQ(Size(got), Size(sent));
  for (size_t i = 0; i < Size(sent); ++i) EXPECT_EQ(gf_list_kind(got, i), gf_list_kind(sent, i)) << i;
  EXPECT_TRUE(BoolAt(got, 1));
  EXPECT_FALSE(BoolAt(got, 2));
  EXPECT_EQ(IntAt(got, 3), -5);
  EXPECT_EQ(DoubleAt(got, 4), 2.5);
  EXPECT_EQ(StringAt(got, 5), "text \xc3\xa9");
  EXPECT_EQ(StringAt(got, 6), binary);
  EXPECT_EQ(ReadFloats(TensorAt(got, 7)), std::vector<float>({1, 2, 3, 4}));
  EXPECT_EQ(StringAt(ListAt(ListAt(got, 8), 1), 0), "deep");
  EXPECT_EQ(Size(ListAt(got, 9)), 0u);
}

TEST_P(HandlersTest, ARequestMayBeAnsweredLaterByAnotherThread) {
  Group group(transport(), {"caller", "callee"});
  Slot<Request> kept;
  HandleDirect(group[1], "later", [&](Request request) { kept.Put(std::move(request)); });
  const Future first = StartCall(group[0], "callee", "later", ListOf(1));
  const Request request_one = kept.Take();
  const Future second = StartCall(group[0], "callee", "later", ListOf(2));
  const Request request_two = kept.Take();
  // In another order than they came.
  std::thread([&] { Reply(request_two, ListOf(IntAt(Arguments(request_two), 0) + 10)); }).join();
  EXPECT_EQ(IntAt(Await(second), 0), 12);
  EXPECT_FALSE(IsDone(first));
  std::thread([&] { Reply(request_one, ListOf(IntAt(Arguments(request_one), 0) + 10)); }).join();
  EXPECT_EQ(IntAt(Await(first), 0), 11);
}

TEST_P(HandlersTest, ASecondAnswerIsRefusedAndTheFirstOneCounts) {
  Group group(transport(), {"caller", "callee"});
  Slot<Request> kept;
  HandleDirect(group[1], "once", [&](Request request) { kept.Put(std::move(request)); });
  const Future call = StartCall(group[0], "callee", "once", NewList());
  const Request request = kept.Take();
  Reply(request, ListOf(1));
  const Error second = ErrorOf([&] { Reply(request, ListOf(2)); });
  EXPECT_EQ(second.code, GF_FAILED_PRECONDITION);
  EXPECT_THAT(second.message, AllOf(HasSubstr("once"), HasSubstr("caller"), HasSubstr("answered already")));
  EXPECT_EQ(ErrorOf([&] { Fail(request, GF_ABORTED, "no"); }).code, GF_FAILED_PRECONDITION);
  EXPECT_EQ(IntAt(Await(call), 0), 1);
}

TEST_P(HandlersTest, OfManyThreadsThatAnswerOneWins) {
  Group group(transport(), {"caller", "callee"});
  Slot<Request> kept;
  HandleDirect(group[1], "race", [&](Request request) { kept.Put(std::move(request)); });
  const Future call = StartCall(group[0], "callee", "race", NewList());
  const Request request = kept.Take();
  std::atomic<int> won{-1}, winners{0};
  Threads threads;
  for (int i = 0; i < 8; ++i) {
    threads.Start([&, i] {
      if (ErrorOf([&] { Reply(request, ListOf(i)); }).code != GF_OK) return;
      won = i;
      ++winners;
    });
  }
  threads.Join();
  EXPECT_EQ(winners, 1);
  EXPECT_EQ(IntAt(Await(call), 0), won);
}

TEST_P(HandlersTest, AHandlerThatFailsGivesItsCodeAndItsText) {
  Group group(transport(), {"caller", "callee"});
  HandleDirect(group[1], "bad", [](Request request) { Fail(request, GF_OUT_OF_RANGE, "row 7 is not there"); });
  const Error error = ErrorOf([&] { CallWorker(group[0], "callee", "bad", NewList()); });
  EXPECT_EQ(error.code, GF_OUT_OF_RANGE);
  EXPECT_THAT(error.message, HasSubstr("row 7 is not there"));
  EXPECT_EQ(error.worker, "callee");
  EXPECT_EQ(error.operation, "bad");
  EXPECT_EQ(error.peer, "callee");
}

TEST_P(HandlersTest, ARequestCannotFailWithOkNorWithAnUnknownCode) {
  Group group(transport(), {"caller", "callee"});
  Slot<Request> kept;
  HandleDirect(group[1], "keep", [&](Request request) { kept.Put(std::move(request)); });
  const Future call = StartCall(group[0], "callee", "keep", NewList());
  const Request request = kept.Take();
  EXPECT_EQ(ErrorOf([&] { Fail(request, GF_OK, "fine"); }).code, GF_INVALID_ARGUMENT);
  const Error unknown = ErrorOf([&] { Fail(request, 4711, "what"); });
  EXPECT_EQ(unknown.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(unknown.message, HasSubstr("4711"));
  Fail(request, GF_DATA_LOSS, "so be it");
  EXPECT_EQ(ErrorOf([&] { Await(call); }).code, GF_DATA_LOSS);
}

TEST_P(HandlersTest, ARequestGivenBackUnansweredIsAnInternalErrorForTheCaller) {
  Group group(transport(), {"caller", "callee"});
  HandleDirect(group[1], "forgets", [](Request) {});
  const Queue queue = NewQueue();
  HandleQueue(group[1], "drops", queue, 0);
  const Future dropped = StartCall(group[0], "callee", "drops", NewList());
  (void)Next(queue);
  for (const auto& [name, error] : std::vector<std::pair<std::string, Error>>{
           {"forgets", ErrorOf([&] { CallWorker(group[0], "callee", "forgets", NewList()); })},
           {"drops", ErrorOf([&] { Await(dropped); })}}) {
    EXPECT_EQ(error.code, GF_INTERNAL);
    EXPECT_EQ(error.worker, "callee");
    EXPECT_THAT(error.message, HasSubstr(name));
  }
}

// A queue that is given back with a request in it.
TEST_P(HandlersTest, ARequestThatNobodyTakesIsAnsweredWhenItsQueueGoes) {
  Group group(transport(), {"caller", "callee"});
  Queue queue = NewQueue();
  HandleQueue(group[1], "abandoned", queue, 0);
  const Future call = StartCall(group[0], "callee", "abandoned", NewList());
  EXPECT_TRUE(Eventually([&] { return Info(group[1])["requests"] == 1; }));
  queue.reset();
  EXPECT_FALSE(IsDone(call));
  Unhandle(group[1], "abandoned");
  EXPECT_EQ(ErrorOf([&] { Await(call); }).code, GF_INTERNAL);
}

TEST_P(HandlersTest, AResultThatCannotBeSentIsAnErrorOnBothSides) {
  Group group(transport(), {"caller", "callee"});
  Slot<Error> seen;
  HandleDirect(group[1], "meta",
               [&](Request request) { seen.Put(ErrorOf([&] { Reply(request, ListOf(MetaTensor({2}))); })); });
  const Error caller = ErrorOf([&] { CallWorker(group[0], "callee", "meta", NewList()); });
  const Error callee = seen.Take();
  EXPECT_EQ(callee.code, GF_UNSUPPORTED);
  EXPECT_THAT(callee.message, HasSubstr("meta"));
  EXPECT_EQ(caller.code, callee.code);
  EXPECT_EQ(caller.worker, "callee");
  EXPECT_EQ(caller.operation, "meta");
}

TEST_P(HandlersTest, NamesAreTakenOnceAndFreedAgain) {
  Group group(transport(), {"caller", "callee"});
  std::atomic<int> dropped{0};
  HandleDirect(
      group[1], "name", [](Request request) { Reply(request, ListOf(1)); }, [&] { ++dropped; });
  const Error taken = ErrorOf([&] { HandleDirect(group[1], "name", [](Request) {}); });
  EXPECT_EQ(taken.code, GF_ALREADY_EXISTS);
  EXPECT_THAT(taken.message, AllOf(HasSubstr("name"), HasSubstr("callee")));
  EXPECT_EQ(IntAt(CallWorker(group[0], "callee", "name", NewList()), 0), 1);
  EXPECT_EQ(dropped, 0);
  Unhandle(group[1], "name");
  EXPECT_TRUE(Eventually([&] { return dropped == 1; }));
  const Error gone = ErrorOf([&] { CallWorker(group[0], "callee", "name", NewList()); });
  EXPECT_EQ(gone.code, GF_NOT_FOUND);
  EXPECT_THAT(gone.message, AllOf(HasSubstr("name"), HasSubstr("callee")));
  EXPECT_EQ(ErrorOf([&] { Unhandle(group[1], "name"); }).code, GF_NOT_FOUND);
  HandleDirect(group[1], "name", [](Request request) { Reply(request, ListOf(2)); });
  EXPECT_EQ(IntAt(CallWorker(group[0], "callee", "name", NewList()), 0), 2);
  for (const std::string& bad : {std::string(), std::string(256, 'x')}) {
    EXPECT_EQ(ErrorOf([&] { HandleDirect(group[1], bad, [](Request) {}); }).code, GF_INVALID_ARGUMENT);
  }
}

// `drop` comes once, after the last call, also when the worker ends with the handler in place.
TEST_P(HandlersTest, AHandlerIsDroppedOnceWhenItsWorkerCloses) {
  std::atomic<int> dropped{0};
  {
    Group group(transport(), {"caller", "callee"});
    HandleDirect(
        group[1], "name", [](Request request) { Reply(request, NewList()); }, [&] { ++dropped; });
    CallWorker(group[0], "callee", "name", NewList());
    EXPECT_EQ(dropped, 0);
  }
  EXPECT_TRUE(Eventually([&] { return dropped == 1; }));
}

TEST_P(HandlersTest, ARunningRequestGoesOnWhenItsHandlerIsTakenAway) {
  Group group(transport(), {"caller", "callee"});
  Slot<Request> kept;
  HandleDirect(group[1], "keep", [&](Request request) { kept.Put(std::move(request)); });
  const Future call = StartCall(group[0], "callee", "keep", NewList());
  const Request request = kept.Take();
  Unhandle(group[1], "keep");
  Reply(request, ListOf(5));
  EXPECT_EQ(IntAt(Await(call), 0), 5);
}

TEST_P(HandlersTest, SomeBlockingFunctionsAreRefusedWithinADirectHandler) {
  Group group(transport(), {"caller", "callee"});
  Slot<std::vector<int32_t>> seen;
  gf_worker* callee = group[1];
  const Queue queue = NewQueue();
  HandleDirect(callee, "blocks", [&](Request request) {
    gf_entry entry;
    size_t count = 0;
    seen.Put({
        ErrorOf([&] { Call(gf_queue_next, queue, &entry, size_t{1}, kSecond, &count); }).code,
        ErrorOf([&] { Call(gf_worker_close, callee, kSecond); }).code,
        ErrorOf([&] { Call(gf_worker_open, nullptr, Worker().out()); }).code,
    });
    // What does not wait is fine.
    Call(gf_queue_next, queue, &entry, size_t{1}, int64_t{0}, &count);
    Reply(request, NewList());
  });
  CallWorker(group[0], "callee", "blocks", NewList());
  EXPECT_EQ(seen.Take(), std::vector<int32_t>(3, GF_REENTRANT));
}

TEST_P(HandlersTest, InlineHandlersAnswerAndMayCallButNotWait) {
  Group group(transport(), {"caller", "callee"});
  Slot<std::vector<int32_t>> seen;
  gf_worker* callee = group[1];
  const Queue queue = NewQueue();
  HandleDirect(group[0], "twice", [](Request request) { Reply(request, ListOf(2 * IntAt(Arguments(request), 0))); });
  HandleDirect(
      callee, "inline",
      [&](Request request) {
        const Future call = StartCall(callee, "caller", "twice", ListOf(4));
        const Context context = NewContext(callee);
        const Tensor root = Sum(WithGrad(Floats({1}, {1})));
        gf_entry entry;
        size_t count = 0;
        seen.Put({
            ErrorOf([&] { CallWorker(callee, "caller", "twice", ListOf(4)); }).code,
            ErrorOf([&] { Backward(context, {root}); }).code,
            ErrorOf([&] { Call(gf_future_wait, call, kSecond); }).code,
            ErrorOf([&] { Call(gf_queue_next, queue, &entry, size_t{1}, kSecond, &count); }).code,
            ErrorOf([&] { Call(gf_worker_close, callee, kSecond); }).code,
        });
        QueueCall(callee, "caller", "twice", ListOf(4), CallOptions().To(queue, 1));
        Reply(request, Arguments(request));
      },
      nullptr, GF_DIRECT_INLINE);
  EXPECT_EQ(IntAt(CallWorker(group[0], "callee", "inline", ListOf(7)), 0), 7);
  const std::vector<int32_t> codes = seen.Take();
  gf_entry entry;
  size_t count = 0;
  Call(gf_queue_next, queue, &entry, size_t{1}, kPatience, &count);
  ASSERT_EQ(count, 1u);
  EXPECT_EQ(entry.code, GF_OK);
  gf_list_unref(entry.results);
  // A call within the handler may have been answered before it is waited for.
  EXPECT_EQ(codes, (std::vector<int32_t>{GF_REENTRANT, GF_REENTRANT, codes[2], GF_REENTRANT, GF_REENTRANT}));
  EXPECT_TRUE(codes[2] == GF_REENTRANT || codes[2] == GF_OK) << codes[2];
}

TEST_P(HandlersTest, UnknownFlagsOfADirectHandlerAreRefused) {
  Group group(transport(), {"only"});
  const Error error = ErrorOf([&] {
    HandleDirect(
        group[0], "flags", [](Request) {}, nullptr, 2);
  });
  EXPECT_EQ(error.code, GF_UNSUPPORTED);
  EXPECT_THAT(error.message, HasSubstr("gf_direct.flags"));
}

// Calls, passes and futures may be waited for within a direct handler, to any depth, although the pool has one thread.
TEST_P(HandlersTest, DirectHandlersMayWaitAlthoughThePoolHasOneThread) {
  Group group(transport(), {"even", "odd"}, {{"worker.threads", "1"}});
  constexpr int64_t kDepth = 64;
  for (int i = 0; i < 2; ++i) {
    gf_worker* self = group[i];
    const std::string other = i == 0 ? "odd" : "even";
    HandleDirect(self, "descend", [self, other](Request request) {
      const List arguments = Arguments(request);
      const Tensor tensor = TensorAt(arguments, 1);
      const int64_t left = IntAt(arguments, 0);
      if (left == 0) return Reply(request, ListOf(Mul(tensor, tensor)));
      const List deeper = CallWorker(self, other, "descend", ListOf(left - 1, tensor), CallOptions().Parent(request));
      // A pass of its own, in a context of its own, while the others wait.
      const Context context = NewContext(self);
      const Tensor leaf = WithGrad(Floats({}, {3}));
      Backward(context, {Mul(leaf, leaf)});
      if (ReadFloats(Gradient(context, leaf)) != std::vector<float>{6}) return Reply(request, NewList());
      Reply(request, deeper);
    });
  }
  const Context context = NewContext(group[0]);
  const Tensor leaf = WithGrad(Floats({2}, {2, 3}));
  const Tensor squared = TensorAt(CallWorker(group[0], "odd", "descend", ListOf(kDepth, leaf), In(context)), 0);
  Backward(context, {Sum(squared)});
  EXPECT_EQ(ReadFloats(Gradient(context, leaf)), std::vector<float>({4, 6}));
}

// A handler that needs another worker's answer starts a call and answers when that has ended: nobody waits.
TEST_P(HandlersTest, ADirectHandlerAnswersWhenACallOfItsOwnHasEnded) {
  Group group(transport(), {"caller", "callee"}, {{"worker.threads", "1"}});
  const Queue completions = NewQueue();
  Slot<Request> waiting;
  HandleDirect(group[0], "half", [](Request request) { Reply(request, ListOf(IntAt(Arguments(request), 0) / 2)); });
  HandleDirect(group[1], "quarter", [&](Request request) {
    QueueCall(group[1], "caller", "half", ListOf(IntAt(Arguments(request), 0) / 2),
              CallOptions().Parent(request).To(completions, 1));
    waiting.Put(std::move(request));
  });
  const Future call = StartCall(group[0], "callee", "quarter", ListOf(168));
  const Entry ended = Next(completions);
  EXPECT_EQ(ended.kind, GF_ENTRY_COMPLETION);
  Reply(waiting.Take(), ended.results);
  EXPECT_EQ(IntAt(Await(call), 0), 42);
}

TEST_P(HandlersTest, TheDescriptorOfAQueueIsReadableWhileEntriesWait) {
  Group group(transport(), {"caller", "callee"});
  const Queue queue = NewQueue();
  int32_t fd = -1;
  Call(gf_queue_fd, queue, &fd);
  auto readable = [&](int timeout_ms) {
    pollfd poller{fd, POLLIN, 0};
    return poll(&poller, 1, timeout_ms) == 1;
  };
  EXPECT_FALSE(readable(0));
  Call(gf_queue_wake, queue, uintptr_t{9});
  EXPECT_TRUE(readable(0));
  Call(gf_queue_wake, queue, uintptr_t{10});
  EXPECT_EQ(Next(queue).token, 9u);
  EXPECT_TRUE(readable(0)) << "one entry is left";
  const Entry wake = Next(queue);
  EXPECT_EQ(wake.kind, GF_ENTRY_WAKE);
  EXPECT_EQ(wake.token, 10u);
  EXPECT_FALSE(readable(0));

  HandleQueue(group[1], "request", queue, 11);
  const Future call = StartCall(group[0], "callee", "request", NewList());
  EXPECT_TRUE(readable(20000));
  Reply(Next(queue).request, NewList());
  Await(call);
  QueueCall(group[0], "callee", "nothing", NewList(), CallOptions().To(queue, 12));
  EXPECT_TRUE(readable(20000));
  const Entry failed = Next(queue);
  EXPECT_EQ(failed.token, 12u);
  EXPECT_EQ(failed.error.code, GF_NOT_FOUND);
  EXPECT_FALSE(readable(0));

  // Asked for when entries wait already.
  const Queue late = NewQueue();
  Call(gf_queue_wake, late, uintptr_t{1});
  Call(gf_queue_fd, late, &fd);
  EXPECT_TRUE(readable(0));
}

TEST_P(HandlersTest, AQueueGivesNothingWhenTheTimeIsUp) {
  const Queue queue = NewQueue();
  gf_entry entry;
  size_t count = 5;
  Call(gf_queue_next, queue, &entry, size_t{1}, int64_t{0}, &count);
  EXPECT_EQ(count, 0u);
  Call(gf_queue_next, queue, &entry, size_t{1}, kMillisecond, &count);
  EXPECT_EQ(count, 0u);
  EXPECT_EQ(ErrorOf([&] { Call(gf_queue_next, queue, &entry, size_t{0}, int64_t{0}, &count); }).code,
            GF_INVALID_ARGUMENT);
  EXPECT_EQ(ErrorOf([&] { Call(gf_queue_next, queue, &entry, size_t{1}, int64_t{-1}, &count); }).code,
            GF_INVALID_ARGUMENT);
}

GF_OVER_ALL_WAYS(HandlersTest);

}  // namespace
}  // namespace gf
