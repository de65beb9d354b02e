// How workers end: closed in peace, closed in a hurry, aborted, forgotten; and opened again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <iterator>
#include <thread>

#include "tests/support/c_abi/group.h"
#include "tests/support/c_abi/handlers.h"
#include "tests/support/c_abi/ways.h"

namespace gf {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class LifeTest : public TransportTest {};

int64_t OpenFiles() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator());
}

TEST_P(LifeTest, AWorkerSaysWhatItIs) {
  Group group(transport(), {"worker0", "worker1"}, {{"group.name", "trio"}});
  const auto info = Info(group[0]);
  EXPECT_EQ(info["name"], "worker0");
  EXPECT_EQ(info["id"], 0);
  EXPECT_EQ(info["group"], "trio");
  EXPECT_EQ(info["transport"], TransportOf(transport()));
  EXPECT_EQ(info["address"], Address(group[0]));
  EXPECT_EQ(info["state"], "open");
  ASSERT_EQ(info["peers"].size(), 2u);
  for (const auto& peer : info["peers"]) {
    EXPECT_EQ(peer["address"], Address(group[peer["id"].get<size_t>()]));
    EXPECT_EQ(peer["name"], group.name(peer["id"].get<size_t>()));
  }
  EXPECT_NE(info["incarnation"], Info(group[1])["incarnation"]);
}

TEST_P(LifeTest, AClosedWorkerRefusesEverything) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Floats({}, {1}));
  const Context context = NewContext(group[0]);
  const Queue queue = NewQueue();
  Call(gf_worker_close, group[0], kPatience);
  EXPECT_EQ(Info(group[0])["state"], "closed");
  for (const Error& error : {
           ErrorOf([&] { CallWorker(group[0], "worker1", "x", NewList()); }),
           ErrorOf([&] { StartCall(group[0], "worker1", "x", NewList()); }),
           ErrorOf([&] { NewContext(group[0]); }),
           ErrorOf([&] { HandleQueue(group[0], "x", queue, 0); }),
       }) {
    EXPECT_EQ(error.code, GF_CLOSED) << error.description;
    EXPECT_THAT(error.message, HasSubstr("worker0"));
  }
  const int32_t backward = ErrorOf([&] { Backward(context, {a}); }).code;
  EXPECT_TRUE(backward == GF_CLOSED || backward == GF_NOT_FOUND) << backward;
  // Closing again changes nothing.
  Call(gf_worker_close, group[0], kPatience);
  Call(gf_worker_abort, group[0]);
}

// Who has waited for that may end the process, where a plugin that still clears up would be in the way.
TEST_P(LifeTest, NothingOfAWorkerIsLeftWhenItsCloseHasEnded) {
  auto open_and_close = [&] {
    Worker worker = OpenWorker(WorkerConfig(transport(), UniqueName(), "worker0", 0));
    Future end;
    Call(gf_worker_close_start, worker, kPatience, end.out());
    worker.reset();
    Await(end);
    return OpenFiles();
  };
  open_and_close();  // what stays for good
  const int64_t before = OpenFiles();
  for (int round = 0; round < 20; ++round) EXPECT_EQ(open_and_close(), before) << round;
}

TEST_P(LifeTest, ClosingLetsRunningCallsEndBothWays) {
  Group group(transport(), {"worker0", "worker1"});
  const Queue queue = NewQueue();
  HandleQueue(group[0], "wait", queue, 0);
  HandleQueue(group[1], "wait", queue, 1);
  const Future out = StartCall(group[0], "worker1", "wait", NewList());
  const Future in = StartCall(group[1], "worker0", "wait", NewList());
  const Entry one = Next(queue), two = Next(queue);
  Future end;
  Call(gf_worker_close_start, group[0], kPatience, end.out());
  // It takes no new ones of its own, nor from others.
  EXPECT_EQ(ErrorOf([&] { CallWorker(group[0], "worker1", "wait", NewList()); }).code, GF_CLOSED);
  const Error refused = ErrorOf([&] { CallWorker(group[1], "worker0", "wait", NewList()); });
  EXPECT_EQ(refused.code, GF_UNAVAILABLE);
  EXPECT_THAT(refused.message, AllOf(HasSubstr("worker0"), HasSubstr("closing")));
  EXPECT_EQ(refused.retry, GF_RETRY_OTHER_PEER);
  EXPECT_FALSE(IsDone(end));
  Reply(one.request, ListOf(1));
  Reply(two.request, ListOf(1));
  EXPECT_EQ(IntAt(Await(out), 0), 1);
  EXPECT_EQ(IntAt(Await(in), 0), 1);
  Await(end);
}

TEST_P(LifeTest, ACloseInAHurryCutsShortWhatStillRuns) {
  Group group(transport(), {"worker0", "worker1"});
  const Queue queue = NewQueue();
  HandleQueue(group[0], "wait", queue, 0);
  HandleQueue(group[1], "wait", queue, 1);
  const Future out = StartCall(group[0], "worker1", "wait", NewList());
  const Future in = StartCall(group[1], "worker0", "wait", NewList());
  const Entry one = Next(queue), two = Next(queue);
  const Error closed = ErrorOf([&] { Call(gf_worker_close, group[0], kMillisecond); });
  EXPECT_EQ(closed.code, GF_DEADLINE_EXCEEDED);
  EXPECT_THAT(closed.message, HasSubstr("worker0"));
  EXPECT_EQ(Info(group[0])["state"], "closed");
  const Error own = ErrorOf([&] { Await(out); });
  EXPECT_EQ(own.code, GF_CLOSED) << own.description;
  EXPECT_THAT(own.message, HasSubstr("worker0"));
  EXPECT_EQ(own.operation, "wait");
  const Error others = ErrorOf([&] { Await(in); });
  EXPECT_EQ(others.code, GF_PEER_LOST) << others.description;
  EXPECT_THAT(others.message, HasSubstr("worker0"));
  EXPECT_TRUE(Eventually(
      [&] { return gf_request_is_cancelled(one.request) == 1 && gf_request_is_cancelled(two.request) == 1; }));
  // Answers that come now go nowhere.
  gf_request_reply(one.request, nullptr, nullptr);
  gf_request_reply(two.request, nullptr, nullptr);
  group.Abort();
}

TEST_P(LifeTest, AbortEndsPendingCallsAtOnce) {
  Group group(transport(), {"worker0", "worker1"});
  const Queue requests = NewQueue(), completions = NewQueue();
  HandleQueue(group[1], "wait", requests, 0);
  const Future call = StartCall(group[0], "worker1", "wait", NewList());
  QueueCall(group[0], "worker1", "wait", NewList(), CallOptions().To(completions, 3));
  const Entry one = Next(requests), two = Next(requests);
  std::atomic<int32_t> blocked{GF_OK};
  std::thread caller([&] { blocked = ErrorOf([&] { CallWorker(group[0], "worker1", "wait", NewList()); }).code; });
  const Entry three = Next(requests);
  Call(gf_worker_abort, group[0]);
  const Error error = ErrorOf([&] { Await(call); });
  EXPECT_EQ(error.code, GF_CLOSED);
  EXPECT_THAT(error.message, HasSubstr("worker0"));
  const Entry completion = Next(completions);
  EXPECT_EQ(completion.token, 3u);
  EXPECT_EQ(completion.error.code, GF_CLOSED);
  caller.join();
  EXPECT_EQ(blocked, GF_CLOSED);
  EXPECT_TRUE(Eventually([&] { return gf_request_is_cancelled(one.request) == 1; }));
  Call(gf_worker_abort, group[0]);
  group.Abort();
}

TEST_P(LifeTest, AbortEndsPassesAndContextsHereAndThere) {
  Group group(transport(), {"worker0", "worker1"});
  RegisterHandlers(group.server(1));
  const Tensor a = WithGrad(Random({20, 20}, 1));
  const Context context = NewContext(group[0]);
  Tensor value = a;
  for (int i = 0; i < 20; ++i) value = RemoteOp(group[0], "worker1", In(context), "aten::matmul", value, a);
  EXPECT_EQ(Info(group[1])["contexts"], 1);
  const Future pass = StartBackward(context, {Sum(value)});
  Call(gf_worker_abort, group[0]);
  const Error error = ErrorOf([&] { Await(pass); });
  EXPECT_TRUE(error.code == GF_OK || error.code == GF_CLOSED || error.code == GF_PASS_ABORTED) << error.description;
  EXPECT_TRUE(Eventually([&] { return Info(group[1])["passes"] == 0; }));
  group.Abort();
}

// A worker that leaves in peace takes its contexts with it, on its peers too.
TEST_P(LifeTest, ContextsOfAWorkerThatClosesGoWithIt) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Random({2}, 1));
  const Context context = NewContext(group[0]);
  (void)RemoteOp(group[0], "worker1", In(context), "aten::add.Tensor", a, a);
  EXPECT_EQ(Info(group[1])["contexts"], 1);
  Call(gf_worker_close, group[0], kPatience);
  EXPECT_TRUE(Eventually([&] { return Info(group[1])["contexts"] == 0; }));
}

TEST_P(LifeTest, GivingTheLastHandleBackAbortsTheWorker) {
  const std::string network = UniqueName();
  Worker first = OpenWorker(WorkerConfig(transport(), network, "first", 0));
  const Worker second = OpenWorker(WorkerConfig(transport(), network, "second", 1));
  AddPeer(second, 0, "first", Address(first));
  const Queue queue = NewQueue();
  HandleQueue(first, "wait", queue, 0);
  const Future call = StartCall(second, "first", "wait", NewList());
  const Entry entry = Next(queue);
  first.reset();
  const Error error = ErrorOf([&] { Await(call); });
  EXPECT_EQ(error.code, GF_PEER_LOST) << error.description;
  EXPECT_THAT(error.message, HasSubstr("first"));
  Call(gf_worker_close, second, kPatience);
}

// A context holds its worker.
TEST_P(LifeTest, AWorkerLivesAsLongAsItsContexts) {
  Worker worker = OpenWorker(WorkerConfig(transport(), UniqueName(), "worker0", 0));
  const Context context = NewContext(worker);
  worker.reset();
  const Tensor a = WithGrad(Floats({}, {3}));
  Backward(context, {Mul(a, a)});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({6}));
}

TEST_P(LifeTest, OpenCloseOpen) {
  for (int round = 0; round < 3; ++round) {
    Group group(transport(), {"worker0", "worker1"});
    const Tensor a = WithGrad(Floats({}, {3}));
    const Context context = NewContext(group[0]);
    Backward(context, {RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, a)});
    EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({6}));
  }
}

// B9: under its name and id, at a new address. PyTorch: the first broken connection poisons that peer for good.
TEST_P(LifeTest, AWorkerThatComesBackIsCalledAgain) {
  Group group(transport(), {"worker0"});
  std::string incarnation;
  for (int round = 0; round < 3; ++round) {
    const Worker other = OpenWorker(WorkerConfig(transport(), group.network(), "phoenix", 1));
    AddPeer(group[0], 1, "phoenix", Address(other));
    AddPeer(other, 0, "worker0", Address(group[0]));
    HandleDirect(other, "round", [round](Request request) { Reply(request, ListOf(round)); });
    // The old connection may still be on its way down.
    EXPECT_TRUE(Eventually(
        [&] { return ErrorOf([&] { CallWorker(group[0], "phoenix", "round", NewList()); }).code == GF_OK; }));
    EXPECT_EQ(IntAt(CallWorker(group[0], "phoenix", "round", NewList()), 0), round);
    const Tensor a = WithGrad(Floats({}, {3}));
    const Context context = NewContext(group[0]);
    Backward(context, {RemoteOp(group[0], "phoenix", In(context), "aten::mul.Tensor", a, a)});
    EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({6}));
    EXPECT_NE(Info(other)["incarnation"].dump(), incarnation);
    incarnation = Info(other)["incarnation"].dump();
    if (round == 1) {
      Call(gf_worker_abort, other);
    } else {
      Call(gf_worker_close, other, kPatience);
    }
  }
}

// They may start and end calls, contexts and passes on each other while all of them go.
TEST_P(LifeTest, WorkersThatCloseTogetherDoSoPromptly) {
  for (int round = 0; round < 5; ++round) {
    const auto began = std::chrono::steady_clock::now();
    {
      Group group(transport(), {"worker0", "worker1", "worker2", "worker3"});
      for (size_t i = 0; i < group.size(); ++i) RegisterHandlers(group.server(i));
      std::vector<Context> contexts;
      const Tensor a = WithGrad(Random({3}, 1));
      for (size_t i = 0; i < group.size(); ++i) {
        contexts.push_back(NewContext(group[i]));
        CallWorker(group[i], group.name((i + 1) % 4), "nested",
                   ListOf(a, a, ListOf(group.name((i + 2) % 4), group.name((i + 3) % 4))), In(contexts.back()));
      }
    }
    // Without the second that a worker grants peers which do not hang up.
    EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::milliseconds(900)) << "round " << round;
  }
}

GF_OVER_ALL_WAYS(LifeTest);

}  // namespace
}  // namespace gf
