// How workers find each other: by torchrun's variables and a TCP store, by a file, by a list of peers, by being told.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <memory>
#include <thread>

#include "tests/support/c_abi/group.h"
#include "tests/support/c_abi/handlers.h"
#include "tests/support/c_abi/process.h"
#include "tests/support/c_abi/ways.h"

namespace gf {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class JoinTest : public TransportTest {
 protected:
  // Opens workers at the same time, since each waits for the others; throws the first error.
  std::vector<Worker> OpenTogether(const std::vector<Config>& configs) {
    std::vector<Worker> workers(configs.size());
    std::vector<Error> errors(configs.size());
    std::vector<std::thread> threads;
    for (size_t i = 0; i < configs.size(); ++i) {
      threads.emplace_back([&, i] { errors[i] = ErrorOf([&] { workers[i] = OpenWorker(configs[i]); }); });
    }
    for (std::thread& thread : threads) thread.join();
    for (const Error& error : errors) {
      if (error.code != GF_OK) throw Failure(error);
    }
    return workers;
  }

  // Each runs a pass over each of the others, and all close.
  void ExpectGroup(const std::vector<Worker>& workers, const std::vector<std::string>& names) {
    for (size_t i = 0; i < workers.size(); ++i) {
      EXPECT_EQ(Info(workers[i])["name"], names[i]);
      EXPECT_EQ(Info(workers[i])["peers"].size(), workers.size());
      for (const std::string& to : names) {
        const Tensor a = WithGrad(Floats({}, {3}));
        const Context context = NewContext(workers[i]);
        Backward(context, {RemoteOp(workers[i], to, In(context), "aten::mul.Tensor", a, a)});
        EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({6}));
      }
    }
    std::vector<Future> ends(workers.size());
    for (size_t i = 0; i < workers.size(); ++i) Call(gf_worker_close_start, workers[i], kPatience, ends[i].out());
    for (const Future& end : ends) Await(end, 2 * kPatience);
  }

  // name: what it calls itself; empty leaves it to the rendezvous.
  Config RankConfig(const std::string& rendezvous, int rank, int world, const std::string& network,
                    const std::string& name = "") {
    const Config config = NewConfig();
    UseWay(config, transport(), name.empty() ? "worker" + std::to_string(rank) : name);
    if (!name.empty()) Set(config, "worker.name", name);
    if (transport() == "sim") Set(config, "transport.sim.network", network);
    Set(config, "group.rendezvous", rendezvous);
    if (rank >= 0) Set(config, "group.rank", std::to_string(rank));
    if (world >= 0) Set(config, "group.world_size", std::to_string(world));
    Set(config, "group.join_timeout", "20s");
    return config;
  }
};

// A port that nobody has at the moment.
int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  bind(fd, reinterpret_cast<sockaddr*>(&address), length);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  close(fd);
  return ntohs(address.sin_port);
}

// Somebody else may take the port between its choice and its use: then another one.
void WithFreePort(const std::function<void(int port)>& body) {
  for (int attempt = 0;; ++attempt) {
    const int port = FreePort();
    const Error error = ErrorOf([&] { body(port); });
    if (error.code == GF_OK) return;
    if (attempt == 5 || error.description.find("ddress already in use") == std::string::npos) throw Failure(error);
  }
}

class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) { setenv(name, value.c_str(), 1); }
  Variable(const Variable&) = delete;
  ~Variable() { unsetenv(name_); }

 private:
  const char* const name_;
};

TEST_P(JoinTest, ByAFileThatAllReach) {
  const TemporaryFolder folder;
  const std::string network = UniqueName();
  std::vector<Config> configs;
  for (int rank = 0; rank < 3; ++rank) {
    configs.push_back(RankConfig("file://" + folder.File("rendezvous"), rank, 3, network, rank == 2 ? "named" : ""));
  }
  ExpectGroup(OpenTogether(configs), {"worker0", "worker1", "named"});
}

TEST_P(JoinTest, ByATcpStore) {
  WithFreePort([&](int port) {
    const std::string network = UniqueName();
    std::vector<Config> configs;
    for (int rank = 0; rank < 3; ++rank) {
      configs.push_back(RankConfig("tcp://127.0.0.1:" + std::to_string(port), rank, 3, network));
    }
    ExpectGroup(OpenTogether(configs), {"worker0", "worker1", "worker2"});
  });
}

// As torchrun sets them; the rank, which differs within this process, may stand in the configuration too.
TEST_P(JoinTest, ByTorchrunsVariables) {
  WithFreePort([&](int port) {
    const Variable address("MASTER_ADDR", "127.0.0.1"), where("MASTER_PORT", std::to_string(port));
    const Variable world("WORLD_SIZE", "2");
    const std::string network = UniqueName();
    std::vector<Config> configs;
    for (int rank = 0; rank < 2; ++rank) configs.push_back(RankConfig("env", rank, -1, network));
    ExpectGroup(OpenTogether(configs), {"worker0", "worker1"});
  });
}

TEST_P(JoinTest, TorchrunsVariablesThatAreMissingAreNamed) {
  const Error error = ErrorOf([&] { OpenWorker(RankConfig("env", -1, -1, UniqueName())); });
  EXPECT_EQ(error.code, GF_FAILED_PRECONDITION);
  EXPECT_THAT(error.message, HasSubstr("RANK"));
  const Variable rank("RANK", "0"), world("WORLD_SIZE", "2"), port("MASTER_PORT", "nowhere");
  const Error number = ErrorOf([&] { OpenWorker(RankConfig("env", -1, -1, UniqueName())); });
  EXPECT_EQ(number.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(number.message, AllOf(HasSubstr("MASTER_PORT"), HasSubstr("nowhere")));
}

TEST_P(JoinTest, AListOfPeersGivesNamesIdsAndAddresses) {
  const std::string network = UniqueName();
  const Worker first = OpenWorker(WorkerConfig(transport(), network, "first", 4));
  const Worker second =
      OpenWorker(WorkerConfig(transport(), network, "second", -1,
                              {{"group.peers", "[{ id = 4, name = \"first\", address = \"" + Address(first) +
                                                   "\" }, { id = 2, name = \"second\" }]"}}));
  EXPECT_EQ(Info(second)["id"], 2);
  const Tensor a = WithGrad(Floats({}, {3}));
  const Context context = NewContext(second);
  // The first did not know of the second; it learns its name, and has no need of its address to send gradients... but
  // for what it calls itself, which is refused until it is told.
  const Tensor square = RemoteOp(second, "first", In(context), "aten::mul.Tensor", a, a);
  const Error error = ErrorOf([&] { CallWorker(first, "second", "x", NewList()); });
  EXPECT_EQ(error.code, GF_UNAVAILABLE);
  EXPECT_THAT(error.message, AllOf(HasSubstr("second"), HasSubstr("address")));
  AddPeer(first, 2, "second", Address(second));
  Backward(context, {square});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({6}));
  Call(gf_worker_close, second, kPatience);
  Call(gf_worker_close, first, kPatience);
}

TEST_P(JoinTest, AMemberMayBeAddedLater) {
  Group group(transport(), {"worker0", "worker1"});
  const Worker late = OpenWorker(WorkerConfig(transport(), group.network(), "late", 7));
  AddPeer(late, 0, "worker0", Address(group[0]));
  AddPeer(group[0], 7, "late", Address(late));
  const Tensor a = WithGrad(Floats({}, {3}));
  for (gf_worker* from : {group[0], late.get()}) {
    const Context context = NewContext(from);
    Backward(context, {RemoteOp(from, from == late.get() ? "worker0" : "late", In(context), "aten::mul.Tensor", a, a)});
    EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({6}));
  }
  Call(gf_worker_close, late, kPatience);
}

TEST_P(JoinTest, AMemberThatDoesNotComeIsNamed) {
  const TemporaryFolder folder;
  const Config config = RankConfig("file://" + folder.File("rendezvous"), 0, 2, UniqueName());
  Set(config, "group.join_timeout", "200ms");
  const Error error = ErrorOf([&] { OpenWorker(config); });
  EXPECT_EQ(error.code, GF_DEADLINE_EXCEEDED);
  EXPECT_THAT(error.message, AllOf(HasSubstr("rank 1"), HasSubstr("group.join_timeout")));
  EXPECT_EQ(error.worker, "worker0");
}

TEST_P(JoinTest, AStoreThatIsNotThereIsNamed) {
  const Config config = RankConfig("tcp://127.0.0.1:" + std::to_string(FreePort()), 1, 2, UniqueName());
  Set(config, "group.join_timeout", "200ms");
  const Error error = ErrorOf([&] { OpenWorker(config); });
  EXPECT_TRUE(error.code == GF_UNAVAILABLE || error.code == GF_DEADLINE_EXCEEDED) << error.description;
  EXPECT_THAT(error.message, HasSubstr("tcp://127.0.0.1"));
}

TEST_P(JoinTest, TwoMembersOfOneNameAreRefused) {
  const TemporaryFolder folder;
  const std::string network = UniqueName();
  std::vector<Config> configs;
  for (int rank = 0; rank < 2; ++rank) {
    configs.push_back(RankConfig("file://" + folder.File("rendezvous"), rank, 2, network, "twin"));
  }
  const Error error = ErrorOf([&] { OpenTogether(configs); });
  EXPECT_EQ(error.code, GF_ALREADY_EXISTS);
  EXPECT_THAT(error.message, AllOf(HasSubstr("twin"), HasSubstr("ranks 0 and 1")));
}

TEST_P(JoinTest, ARankOutsideOfTheWorldIsRefused) {
  const TemporaryFolder folder;
  const Error error =
      ErrorOf([&] { OpenWorker(RankConfig("file://" + folder.File("rendezvous"), 2, 2, UniqueName())); });
  EXPECT_EQ(error.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, AllOf(HasSubstr("group.rank"), HasSubstr("group.world_size")));
}

GF_OVER_ALL_WAYS(JoinTest);

// Processes launched as torchrun does it: nothing but the variables tells them who they are.
class TorchrunTest : public TransportTest {};

TEST_P(TorchrunTest, ProcessesJoinByTheVariablesAlone) {
  WithFreePort([&](int port) {
    const std::vector<std::string> common = {"MASTER_ADDR=127.0.0.1", "MASTER_PORT=" + std::to_string(port),
                                             "WORLD_SIZE=3"};
    // What the processes inherit is there before they start.
    const Config config = NewConfig();
    UseWay(config, transport(), "worker0");
    Set(config, "group.rendezvous", "env");
    Set(config, "group.join_timeout", "30s");
    std::vector<std::unique_ptr<Process>> processes;
    for (int rank = 1; rank < 3; ++rank) {
      std::vector<std::string> environment = common;
      environment.push_back("RANK=" + std::to_string(rank));
      processes.push_back(std::make_unique<Process>(
          "peer_main", std::vector<std::string>{transport(), "", "group.rendezvous=env", "group.join_timeout=30s"},
          environment));
    }
    Worker worker;
    {
      const Variable address("MASTER_ADDR", "127.0.0.1"), where("MASTER_PORT", std::to_string(port));
      const Variable world("WORLD_SIZE", "3"), rank("RANK", "0");
      worker = OpenWorker(config);
    }
    EXPECT_EQ(Info(worker)["name"], "worker0");
    for (const char* peer : {"worker1", "worker2"}) {
      WaitUntilReady(worker, peer);
      const Tensor a = WithGrad(Floats({}, {3}));
      const Context context = NewContext(worker);
      Backward(context, {RemoteOp(worker, peer, In(context), "aten::mul.Tensor", a, a)});
      EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({6}));
    }
    for (auto& process : processes) process->CloseInput();
    Call(gf_worker_close, worker, kPatience);
    for (auto& process : processes) EXPECT_EQ(process->Wait(2 * kPatience), 0);
  });
}

GF_OVER_ALL_REAL_WAYS(TorchrunTest);

}  // namespace
}  // namespace gf
