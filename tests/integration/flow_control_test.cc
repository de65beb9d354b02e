// Windows: what a worker may have under way, and what it does with the calls beyond them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/support/c_abi/group.h"
#include "tests/support/c_abi/handlers.h"
#include "tests/support/c_abi/live.h"
#include "tests/support/c_abi/live.h"
#include "tests/support/c_abi/prometheus.h"

namespace gf {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

int64_t Waiting(gf_worker* worker) { return Info(worker)["waiting_calls"]; }

Error ErrorWhenFull(gf_worker* from, const std::string& to, uint32_t when_full) {
  gf_call call{};
  call.struct_size = sizeof(call);
  call.to = to.data();
  call.to_length = to.size();
  call.name = "wait";
  call.name_length = 4;
  call.deadline = 20 * kMillisecond;
  call.when_full = when_full;
  return ErrorOf([&] {
    List results;
    Call(gf_call_sync, from, &call, results.out());
  });
}

class FlowControlTest : public TransportTest {
 protected:
  // "wait" of the callees: requests stay in the queue's order until they are answered.
  void Open(const Settings& settings, std::vector<std::string> names = {"caller", "callee", "other"}) {
    group_ = std::make_unique<Group>(transport(), std::move(names), settings);
    for (size_t i = 1; i < group_->size(); ++i) HandleQueue((*group_)[i], "wait", queue_, i);
  }
  void TearDown() override {
    held_.clear();
    group_ = nullptr;
    TransportTest::TearDown();
  }
  gf_worker* caller() { return (*group_)[0]; }
  Future Start(const std::string& to, int number) { return StartCall(caller(), to, "wait", ListOf(number)); }
  // The number of the request that arrives next, which is held.
  int64_t Arrives() {
    held_.push_back(Next(queue_));
    return IntAt(Arguments(held_.back().request), 0);
  }
  void AnswerFirst() {
    Reply(held_.front().request, NewList());
    held_.erase(held_.begin());
  }

  const Queue queue_ = NewQueue();
  std::unique_ptr<Group> group_;
  std::vector<Entry> held_;
};

TEST_P(FlowControlTest, CallsBeyondTheWindowWaitAndGoInOrder) {
  Open({{"limits.calls_per_peer", "2"}});
  std::vector<Future> calls;
  for (int i = 0; i < 6; ++i) calls.push_back(Start("callee", i));
  EXPECT_EQ(Waiting(caller()), 4);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(Arrives(), i);
  for (int i = 2; i < 6; ++i) {
    AnswerFirst();
    EXPECT_EQ(Arrives(), i);
  }
  while (!held_.empty()) AnswerFirst();
  for (const Future& call : calls) Await(call);
  EXPECT_EQ(Waiting(caller()), 0);
}

TEST_P(FlowControlTest, WhatWaitsAndWhatIsHeldIsCounted) {
  Open({{"limits.calls_per_peer", "1"}});
  const auto sum = [](gf_worker* worker, const char* family, const std::map<std::string, std::string>& labels) {
    return ParseMetrics(Text(gf_worker_metrics, worker)).Sum(family, labels);
  };
  const Future first = StartCall(caller(), "callee", "wait", ListOf(1, Random({1000}, 1)));
  const Future second = Start("callee", 2), third = Start("callee", 3);
  EXPECT_EQ(Arrives(), 1);
  EXPECT_EQ(sum(caller(), "gradferry_calls_waiting", {{"peer", "callee"}}), 2);
  EXPECT_GE(sum((*group_)[1], "gradferry_peer_memory_bytes", {{"peer", "caller"}}), 4000);
  Call(gf_future_cancel, third);
  EXPECT_EQ(ErrorWhenFull(caller(), "callee", GF_WHEN_FULL_WAIT).code, GF_DEADLINE_EXCEEDED);
  AnswerFirst();
  EXPECT_EQ(Arrives(), 2);
  AnswerFirst();
  Await(first);
  Await(second);
  EXPECT_EQ(sum(caller(), "gradferry_calls_waiting", {}), 0);
  for (const char* outcome : {"CANCELLED", "DEADLINE_EXCEEDED"}) {
    EXPECT_EQ(sum(caller(), "gradferry_calls_total", {{"peer", "callee"}, {"outcome", outcome}}), 1) << outcome;
  }
  // The last of them is let go of once the reply has gone.
  EXPECT_TRUE(Eventually([&] { return sum((*group_)[1], "gradferry_peer_memory_bytes", {{"peer", "caller"}}) == 0; }));
}

TEST_P(FlowControlTest, AFullPeerDoesNotHoldOthersBack) {
  Open({{"limits.calls_per_peer", "1"}});
  const Future first = Start("callee", 1), second = Start("callee", 2), third = Start("other", 3);
  std::vector<int64_t> came = {Arrives(), Arrives()};
  EXPECT_THAT(came, ::testing::UnorderedElementsAre(1, 3));
  AnswerFirst();
  AnswerFirst();
  EXPECT_EQ(Arrives(), 2);
  AnswerFirst();
  for (const Future* call : {&first, &second, &third}) Await(*call);
}

TEST_P(FlowControlTest, TheWorkersWindowIsForAllPeers) {
  Open({{"limits.calls", "1"}});
  const Future first = Start("callee", 1), second = Start("other", 2);
  EXPECT_EQ(Arrives(), 1);
  EXPECT_EQ(Waiting(caller()), 1);
  AnswerFirst();
  EXPECT_EQ(Arrives(), 2);
  AnswerFirst();
  Await(first);
  Await(second);
}

TEST_P(FlowControlTest, ACallThatGetsNoRoomInTimeSaysWhatItWaitedFor) {
  Open({{"limits.calls_per_peer", "1"}});
  const Future first = Start("callee", 1);
  const Error error = ErrorWhenFull(caller(), "callee", GF_WHEN_FULL_WAIT);
  EXPECT_EQ(error.code, GF_DEADLINE_EXCEEDED);
  EXPECT_THAT(error.message, AllOf(HasSubstr("callee"), HasSubstr("limits.calls_per_peer (1)"), HasSubstr("room")));
  EXPECT_EQ(Arrives(), 1);
  AnswerFirst();
  Await(first);
}

TEST_P(FlowControlTest, TheCallSaysWhetherItWaits) {
  Open({{"limits.calls_per_peer", "1"}});
  const Future first = Start("callee", 1);
  EXPECT_EQ(Arrives(), 1);
  const Error error = ErrorWhenFull(caller(), "callee", GF_WHEN_FULL_FAIL);
  EXPECT_EQ(error.code, GF_RESOURCE_EXHAUSTED);
  EXPECT_THAT(error.message, AllOf(HasSubstr("callee"), HasSubstr("limits.calls_per_peer (1)")));
  EXPECT_EQ(ErrorWhenFull(caller(), "callee", 3).code, GF_UNSUPPORTED);
  AnswerFirst();
  Await(first);
}

TEST_P(FlowControlTest, ACallThatIsCancelledDoesNotWaitAnyMore) {
  Open({{"limits.calls_per_peer", "1"}});
  const Future first = Start("callee", 1), second = Start("callee", 2), third = Start("callee", 3);
  Call(gf_future_cancel, second);
  EXPECT_EQ(Waiting(caller()), 1);
  EXPECT_EQ(ErrorOf([&] { Await(second); }).code, GF_CANCELLED);
  EXPECT_EQ(Arrives(), 1);
  AnswerFirst();
  EXPECT_EQ(Arrives(), 3);
  AnswerFirst();
  Await(first);
  Await(third);
}

TEST_P(FlowControlTest, BytesHaveAWindowAndWhatIsLargerGoesAlone) {
  Open({{"limits.bytes_per_peer", "1000"}});
  const Tensor small = Random({100}, 1), large = Random({10000}, 2);
  const Future first = StartCall(caller(), "callee", "wait", ListOf(1, small));
  const Future second = StartCall(caller(), "callee", "wait", ListOf(2, large));
  const Future third = StartCall(caller(), "callee", "wait", ListOf(3, small));
  for (int i = 1; i <= 3; ++i) {
    EXPECT_EQ(Arrives(), i);
    EXPECT_EQ(Waiting(caller()), 3 - i);
    AnswerFirst();
  }
  for (const Future* call : {&first, &second, &third}) Await(*call);
}

TEST_P(FlowControlTest, ThePeersOwnLimitHoldsToo) {
  Open({{"limits.requests", "1"}});
  const Future first = Start("callee", 1);
  EXPECT_EQ(Arrives(), 1);  // now the caller knows it
  const Future second = Start("callee", 2);
  EXPECT_EQ(Waiting(caller()), 1);
  AnswerFirst();
  EXPECT_EQ(Arrives(), 2);
  AnswerFirst();
  Await(first);
  Await(second);
}

TEST_P(FlowControlTest, WhatThePeerCannotHoldIsRefusedAtOnce) {
  Open({{"limits.memory_per_peer", "100000"}});
  const Future first = Start("callee", 1);
  EXPECT_EQ(Arrives(), 1);
  const Tensor large = Random({30000}, 2);
  const Error error = ErrorOf([&] { CallWorker(caller(), "callee", "wait", ListOf(2, large)); });
  EXPECT_EQ(error.code, GF_RESOURCE_EXHAUSTED);
  EXPECT_THAT(error.message, AllOf(HasSubstr("limits.memory_per_peer"), HasSubstr("callee")));
  // Nor a reply.
  const Error reply = ErrorOf([&] { Reply(held_.front().request, ListOf(large)); });
  EXPECT_EQ(reply.code, GF_RESOURCE_EXHAUSTED);
  EXPECT_THAT(ErrorOf([&] { Await(first); }).message, HasSubstr("limits.memory_per_peer (100000)"));
}

TEST_P(FlowControlTest, APassRunsWhereNoCallHasRoom) {
  Open({{"limits.calls_per_peer", "1"}, {"limits.bytes_per_peer", "64"}, {"limits.calls", "1"}});
  const Tensor a = WithGrad(RandomDoubles({3000}, 1)), b = RandomDoubles({3000}, 2);
  const Context context = NewContext(caller());
  const Tensor product = RemoteOp(caller(), "callee", In(context), "aten::mul.Tensor", a, b);
  const Future first = Start("callee", 1), second = Start("callee", 2);
  EXPECT_EQ(Arrives(), 1);
  Backward(context, {Sum(product)});
  EXPECT_EQ(ReadDoubles(Gradient(context, a)), ReadDoubles(b));
  EXPECT_EQ(Waiting(caller()), 1);
  AnswerFirst();
  EXPECT_EQ(Arrives(), 2);
  AnswerFirst();
  Await(first);
  Await(second);
}

TEST_P(FlowControlTest, AWorkerThatEndsTellsTheCallsThatWait) {
  Open({{"limits.calls_per_peer", "1"}});
  const Future first = Start("callee", 1), second = Start("callee", 2);
  EXPECT_EQ(Arrives(), 1);
  Call(gf_worker_abort, caller());
  EXPECT_EQ(ErrorOf([&] { Await(first); }).code, GF_CLOSED);
  EXPECT_EQ(ErrorOf([&] { Await(second); }).code, GF_CLOSED);
}

TEST_P(FlowControlTest, CallsThatWaitFailOneByOneWhenNobodyIsThere) {
  Open({{"limits.calls_per_peer", "1"}});
  std::vector<Future> calls;
  for (int i = 0; i < 200; ++i) calls.push_back(Start("callee", i));
  EXPECT_EQ(Arrives(), 0);
  held_.clear();
  Call(gf_worker_abort, (*group_)[1]);
  for (const Future& call : calls) EXPECT_NE(ErrorOf([&] { Await(call); }).code, GF_OK);
  EXPECT_EQ(Waiting(caller()), 0);
}

GF_OVER_ALL_WAYS(FlowControlTest);

}  // namespace
}  // namespace gf
