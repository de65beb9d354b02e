// Workers with several transports: which one two of them use, and what is said when they have none in common.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <thread>

#include "tests/support/c_abi/group.h"
#include "tests/support/c_abi/process.h"

namespace gf {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class TransportsTest : public LiveTest {
 protected:
  Worker Open(const std::string& transports, const std::string& name, int id, const Settings& more = {}) {
    Settings settings = {{"transport.sim.network", network_}, {"transport.sim.time", "real"}};
    for (const auto& [key, value] : more) settings[key] = value;
    return OpenWorker(WorkerConfig(transports, network_, name, id, settings));
  }
  static void Introduce(const Worker& a, const Worker& b) {
    AddPeer(a, Info(b)["id"], Info(b)["name"], Address(b));
    AddPeer(b, Info(a)["id"], Info(a)["name"], Address(a));
  }
  // A pass over the peer.
  static void UsePeer(const Worker& from, const std::string& to) {
    const Tensor a = WithGrad(Floats({}, {3}));
    const Context context = NewContext(from);
    Backward(context, {RemoteOp(from, to, In(context), "aten::mul.Tensor", a, a)});
    EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({6}));
  }
  static std::string TransportTo(const Worker& from, const std::string& to) {
    const auto info = Info(from);
    for (const auto& peer : info["peers"]) {
      if (peer["name"] == to) return peer["transport"];
    }
    return "unknown peer";
  }
  static void Close(const std::vector<Worker>& workers) {
    std::vector<Future> ends(workers.size());
    for (size_t i = 0; i < workers.size(); ++i) Call(gf_worker_close_start, workers[i], kPatience, ends[i].out());
    for (const Future& end : ends) Await(end, 2 * kPatience);
  }

  const std::string network_ = UniqueName();
};

TEST_F(TransportsTest, TheDiallerTakesTheFirstOfItsOwnThatThePeerHas) {
  const Worker a = Open(R"(["tensorpipe", "sim"])", "a", 0);
  const Worker b = Open(R"(["sim", "tensorpipe"])", "b", 1);
  EXPECT_THAT(Address(a), AllOf(StartsWith("tensorpipe=uv://"), HasSubstr(" sim=sim://")));
  EXPECT_EQ(Info(a)["transport"], "tensorpipe sim");
  Introduce(a, b);
  RemoteOp(a, "b", {}, "aten::neg", Floats({}, {3}));
  EXPECT_EQ(TransportTo(a, "b"), "tensorpipe");
  // The connection that b was given, until it makes its own: for the gradients.
  EXPECT_EQ(TransportTo(b, "a"), "tensorpipe");
  UsePeer(a, "b");
  EXPECT_EQ(TransportTo(a, "b"), "tensorpipe");
  EXPECT_EQ(TransportTo(b, "a"), "sim");
  EXPECT_TRUE(Info(a)["transport_counters"].contains("sim"));
  Close({a, b});
}

TEST_F(TransportsTest, TensorPipeAndThriftServeOneWorker) {
  const Worker a = Open(R"(["tensorpipe", "thrift"])", "a", 0);
  const Worker b = Open(R"(["thrift", "tensorpipe"])", "b", 1);
  const Worker c = Open("thrift", "c", 2);
  Introduce(a, b);
  AddPeer(a, 2, "c", "thrift=" + Address(c));
  AddPeer(c, 0, "a", Address(a));
  UsePeer(a, "b");
  UsePeer(a, "c");
  UsePeer(c, "a");
  EXPECT_EQ(TransportTo(a, "b"), "tensorpipe");
  EXPECT_EQ(TransportTo(b, "a"), "thrift");
  EXPECT_EQ(TransportTo(a, "c"), "thrift");
  EXPECT_EQ(TransportTo(c, "a"), "thrift");
  Close({a, b, c});
}

TEST_F(TransportsTest, WorkersThatShareOnlyASecondChoiceUseIt) {
  const Worker a = Open(R"(["tensorpipe", "sim"])", "a", 0);
  const Worker b = Open("sim", "b", 1);
  AddPeer(a, 1, "b", "sim=" + Address(b));
  AddPeer(b, 0, "a", Address(a));
  UsePeer(a, "b");
  UsePeer(b, "a");
  EXPECT_EQ(TransportTo(a, "b"), "sim");
  EXPECT_EQ(TransportTo(b, "a"), "sim");
  Close({a, b});
}

TEST_F(TransportsTest, WorkersThatShareNoneSaySoByName) {
  const Worker a = Open("tensorpipe", "alpha", 0);
  const Worker b = Open("sim", "beta", 1);
  AddPeer(a, 1, "beta", "sim=" + Address(b));
  AddPeer(b, 0, "alpha", "tensorpipe=" + Address(a));
  const Error error = ErrorOf([&] { UsePeer(a, "beta"); });
  EXPECT_EQ(error.code, GF_FAILED_PRECONDITION);
  EXPECT_EQ(error.peer, "beta");
  EXPECT_THAT(error.message, HasSubstr("worker alpha cannot connect to worker beta: they have no transport in common: "
                                       "the former has tensorpipe, the latter has sim"));
  EXPECT_THAT(ErrorOf([&] { UsePeer(b, "alpha"); }).message,
              HasSubstr("the former has sim, the latter has tensorpipe"));
  Close({a, b});
}

// In a rendezvous every address comes with its transport's name, so that preferences may differ.
TEST_F(TransportsTest, WorkersWithDifferentListsMeetInARendezvous) {
  const TemporaryFolder folder;
  const std::vector<std::string> lists = {R"(["tensorpipe", "sim"])", "sim", "tensorpipe"};
  std::vector<Worker> workers(lists.size());
  std::vector<Error> errors(lists.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < lists.size(); ++i) {
    threads.emplace_back([&, i] {
      errors[i] = ErrorOf([&] {
        workers[i] = Open(lists[i], "w" + std::to_string(i), static_cast<int>(i),
                          {{"group.rendezvous", "file://" + folder.File("meet")},
                           {"group.rank", std::to_string(i)},
                           {"group.world_size", std::to_string(lists.size())}});
      });
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Error& error : errors) ASSERT_EQ(error.code, GF_OK) << error.description;
  UsePeer(workers[0], "w1");
  UsePeer(workers[0], "w2");
  UsePeer(workers[1], "w0");
  EXPECT_EQ(TransportTo(workers[0], "w1"), "sim");
  EXPECT_EQ(TransportTo(workers[0], "w2"), "tensorpipe");
  EXPECT_THAT(ErrorOf([&] { UsePeer(workers[1], "w2"); }).message, HasSubstr("no transport in common"));
  Close(workers);
}

TEST_F(TransportsTest, EachListensWhereItIsTold) {
  const Worker a = Open(R"(["tensorpipe", "sim"])", "a", 0, {{"worker.listen", "tensorpipe=uv://127.0.0.2:0"}});
  EXPECT_THAT(Address(a), AllOf(StartsWith("tensorpipe=uv://127.0.0.2:"), HasSubstr(" sim=sim://")));
  Close({a});
  const auto error = [&](const std::string& listen) {
    return ErrorOf([&] { Open(R"(["tensorpipe", "sim"])", "a", 0, {{"worker.listen", listen}}); });
  };
  EXPECT_EQ(error("uv://127.0.0.1:0").code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(error("uv://127.0.0.1:0").message, AllOf(HasSubstr("worker.listen"), HasSubstr("name=address")));
  EXPECT_THAT(error("thrift=127.0.0.1:0").message, AllOf(HasSubstr("worker.listen"), HasSubstr("thrift")));
}

// Never without one that was asked for.
TEST_F(TransportsTest, OneThatCannotBeOpenedIsAnError) {
  const Error error = ErrorOf([&] { Open(R"(["tensorpipe", "pigeons"])", "a", 0); });
  EXPECT_EQ(error.code, GF_NOT_FOUND);
  EXPECT_THAT(error.message, HasSubstr("pigeons"));
  const Error plugin = ErrorOf([&] { Open(R"(["tensorpipe", "sim"])", "a", 0, {{"transport.plugin", "/x.so"}}); });
  EXPECT_THAT(plugin.message, HasSubstr("transport.plugin_path"));
  const Error time = ErrorOf([&] { Open(R"(["tensorpipe", "sim"])", "a", 0, {{"transport.sim.time", "virtual"}}); });
  EXPECT_THAT(time.message, HasSubstr("owns time"));
}

TEST_F(TransportsTest, NamesOfTransportsAreChecked) {
  for (const char* bad : {"[]", R"(["sim", "sim"])", "[3]", "3 4", ""}) {
    const Config config = NewConfig();
    const Error error = ErrorOf([&] { Set(config, "transport.name", bad); });
    EXPECT_EQ(error.code, GF_INVALID_ARGUMENT) << bad;
    EXPECT_THAT(error.message, HasSubstr("transport.name")) << bad;
  }
}

class LogLines {
 public:
  LogLines() { Call(gf_log_set, &LogLines::Add, reinterpret_cast<uintptr_t>(this), GF_LOG_INFO); }
  ~LogLines() { gf_log_set(nullptr, 0, GF_LOG_OFF, nullptr); }
  std::vector<std::string> Get() {
    std::lock_guard lock(mutex_);
    return lines_;
  }

 private:
  static void Add(uintptr_t token, uint32_t, const char* message, size_t length) {
    auto* self = reinterpret_cast<LogLines*>(token);
    std::lock_guard lock(self->mutex_);
    self->lines_.emplace_back(message, length);
  }
  std::mutex mutex_;
  std::vector<std::string> lines_;
};

TEST_F(TransportsTest, TheChoiceIsInTheLog) {
  LogLines log;
  const Worker a = Open(R"(["tensorpipe", "sim"])", "a", 0);
  const Worker b = Open("sim", "b", 1);
  AddPeer(a, 1, "b", "sim=" + Address(b));
  RemoteOp(a, "b", {}, "aten::neg", Floats({}, {3}));
  EXPECT_THAT(log.Get(), Contains(StartsWith("worker a connects to worker b by sim at sim=sim://")));
  Close({a, b});
}

}  // namespace
}  // namespace gf
