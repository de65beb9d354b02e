// The life of a worker: joining by every kind of rendezvous, closing with and without work to do, aborting, opening
// again.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

#include "tests/integration/modes.h"

namespace gf {
namespace {

using ::testing::HasSubstr;

// A port that was free a moment ago.
int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  close(fd);
  return ntohs(address.sin_port);
}

class LifecycleTest : public TransportTest {
 protected:
  // Opens `count` workers side by side, as processes would, and lets the last call the first.
  void OpenAndCall(int count, const std::function<Settings(int)>& settings) {
    const std::string network = UniqueName();
    std::vector<Worker> workers(count);
    std::vector<Error> errors(count);
    std::vector<std::thread> threads;
    for (int i = 0; i < count; ++i) {
      threads.emplace_back([&, i] {
        errors[i] = ErrorOf([&] {
          Settings more = settings(i);
          more["worker.id"] = "-1";
          workers[i] = OpenWorker(WorkerConfig(transport(), network, "rank" + std::to_string(i), i, more));
        });
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const Error& error : errors) EXPECT_EQ(error.code, GF_OK) << error.description;
    if (HasFailure()) return;
    EXPECT_EQ(ReadFloats(RemoteOp(workers[count - 1], "rank0", {}, "aten::neg", Floats({1}, {4}))),
              (std::vector<float>{-4}));
    EXPECT_EQ(Info(workers[0])["peers"].size(), static_cast<size_t>(count));
    for (const Worker& worker : workers) Call(gf_worker_close, worker, kPatience);
  }
};

TEST_P(LifecycleTest, AGroupMeetsByAFile) {
  const std::string file = ::testing::TempDir() + "/" + UniqueName();
  OpenAndCall(3, [&](int rank) {
    return Settings{{"group.rendezvous", "file://" + file},
                    {"group.rank", std::to_string(rank)},
                    {"group.world_size", "3"},
                    {"group.join_timeout", "20s"}};
  });
}

TEST_P(LifecycleTest, AGroupMeetsByAStoreOverTcp) {
  const int port = FreePort();
  OpenAndCall(3, [&](int rank) {
    return Settings{{"group.rendezvous", "tcp://127.0.0.1:" + std::to_string(port)},
                    {"group.rank", std::to_string(rank)},
                    {"group.world_size", "3"},
                    {"group.join_timeout", "20s"}};
  });
}

TEST_P(LifecycleTest, AGroupMeetsByTheVariablesOfTorchrun) {
  setenv("MASTER_ADDR", "127.0.0.1", 1);
  setenv("MASTER_PORT", std::to_string(FreePort()).c_str(), 1);
  setenv("RANK", "0", 1);
  setenv("WORLD_SIZE", "1", 1);
  OpenAndCall(1, [&](int) { return Settings{{"group.rendezvous", "env"}, {"group.join_timeout", "20s"}}; });
  unsetenv("RANK");
  const Error error = ErrorOf([&] {
    OpenWorker(WorkerConfig(transport(), UniqueName(), "w", -1, {{"group.rendezvous", "env"}}));
  });
  EXPECT_EQ(error.code, GF_FAILED_PRECONDITION);
  EXPECT_THAT(error.message, HasSubstr("RANK"));
  for (const char* name : {"MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE"}) unsetenv(name);
}

TEST_P(LifecycleTest, AWorkerCanBeOpenedAgain) {
  for (int i = 0; i < 5; ++i) {
    Group group(transport(), {"alice", "bob"});
    EXPECT_EQ(ReadFloats(RemoteOp(group[0], "bob", {}, "aten::neg", Floats({1}, {4}))), (std::vector<float>{-4}));
  }
}

TEST_P(LifecycleTest, AReturningPeerIsConnectedToAgain) {
  Group group(transport(), {"alice"});
  for (int life = 0; life < 3; ++life) {
    const Worker bob = OpenWorker(WorkerConfig(transport(), group.network(), "bob", 1));
    AddPeer(group[0], 1, "bob", Address(bob));
    EXPECT_EQ(ReadFloats(RemoteOp(group[0], "bob", {}, "aten::neg", Floats({1}, {4}))), (std::vector<float>{-4}));
    Call(gf_worker_close, bob, kPatience);
    EXPECT_TRUE(Eventually([&] {
      for (const auto& peer : Info(group[0])["peers"]) {
        if (peer["name"] == "bob" && peer["state"] == "connected") return false;
      }
      return true;
    }));
  }
}

TEST_P(LifecycleTest, CloseLetsRunningCallsEnd) {
  Group group(transport(), {"alice", "bob"});
  const Queue queue = NewQueue();
  HandleQueue(group[1], "slow", queue, 1);
  const Future call = StartCall(group[0], "bob", "slow", NewList());
  const Entry entry = Next(queue);
  Future closing;
  Call(gf_worker_close_start, group[0], kPatience, closing.out());
  EXPECT_EQ(ErrorOf([&] { StartCall(group[0], "bob", "slow", NewList()); }).code, GF_CLOSED);
  EXPECT_FALSE(IsDone(closing));
  Reply(entry.request, ListOf(1));
  EXPECT_EQ(IntAt(Await(call), 0), 1);
  Await(closing);
  Call(gf_worker_close, group[0], kPatience);  // again, harmless
}

TEST_P(LifecycleTest, CloseCutsShortWhatRunsBeyondItsDeadline) {
  Group group(transport(), {"bob"});
  const Queue queue = NewQueue();
  HandleQueue(group[0], "never", queue, 1);
  const Worker alice = OpenWorker(WorkerConfig(transport(), group.network(), "alice", 7));
  AddPeer(alice, 0, "bob", Address(group[0]));
  const Future call = StartCall(alice, "bob", "never", NewList());
  const Entry entry = Next(queue);
  EXPECT_EQ(ErrorOf([&] { Call(gf_worker_close, alice, 50 * kMillisecond); }).code, GF_DEADLINE_EXCEEDED);
  const Error error = ErrorOf([&] { Await(call); });
  EXPECT_TRUE(error.code == GF_CLOSED || error.code == GF_PEER_LOST) << error.description;
  EXPECT_TRUE(Eventually([&] { return gf_request_is_cancelled(entry.request) == 1; }));
}

TEST_P(LifecycleTest, AbortEndsPendingCallsAndPasses) {
  Group group(transport(), {"alice", "bob"});
  const Queue queue = NewQueue();
  HandleQueue(group[1], "never", queue, 1);
  const Future call = StartCall(group[0], "bob", "never", NewList());
  const Entry entry = Next(queue);
  Call(gf_worker_abort, group[0]);
  EXPECT_EQ(ErrorOf([&] { Await(call); }).code, GF_CLOSED);
  EXPECT_TRUE(Eventually([&] { return gf_request_is_cancelled(entry.request) == 1; }));
  EXPECT_EQ(ErrorOf([&] { NewContext(group[0]); }).code, GF_CLOSED);
  Call(gf_worker_abort, group[0]);  // again, harmless
}

TEST_P(LifecycleTest, ContextsOfAWorkerThatLeavesAreGoneAtItsPeers) {
  Group group(transport(), {"alice", "bob"});
  const Context context = NewContext(group[0]);
  RemoteOp(group[0], "bob", In(context), "aten::neg", WithGrad(Floats({1}, {4})));
  EXPECT_EQ(Info(group[1])["contexts"], 1);
  Call(gf_worker_close, group[0], kPatience);
  EXPECT_TRUE(Eventually([&] { return Info(group[1])["contexts"] == 0; }));
}

GF_OVER_ALL_TRANSPORTS(LifecycleTest);

}  // namespace
}  // namespace gf
