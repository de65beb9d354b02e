// Offenders with plain sockets against a worker in another process, over every way by which it listens: whatever they
// do, it lives, the calls of an honest peer go on, its memory does not rise by more than 1 MiB for each of them, and
// its log says what was wrong. Of latencies only the median is judged, and roughly: the machine that runs this is not
// ours alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <sstream>
#include <thread>

#include "impl/rpc/handshake.h"
#include "impl/wire/frame.h"
#include "impl/wire/seal.h"
#include "tests/hostile/offenders.h"
#include "tests/support/c_abi/group.h"
#include "tests/support/c_abi/process.h"
#include "tests/support/c_abi/ways.h"

namespace gf {
namespace {

using gradferry::DialHandshake;
using gradferry::EncodeFrame;
using gradferry::HelloProof;
using gradferry::HelloReply;
using gradferry::Identity;
using gradferry::Message;
using std::chrono::steady_clock;

constexpr char kSecret[] = "walk softly and carry it";
constexpr int kOffenders = 50;
constexpr double kBusyMachineUs = 50000;

// ---- The worker and its honest peer --------------------------------------------------------------------------------

struct Latencies {
  std::vector<double> us;
  double Percentile(double p) {
    if (us.empty()) return 0;
    std::sort(us.begin(), us.end());
    return us[std::min(us.size() - 1, static_cast<size_t>(p * static_cast<double>(us.size())))];
  }
};

class SocketsTest : public LiveTest, public ::testing::WithParamInterface<std::string> {
 protected:
  static void SetUpTestSuite() {
    folder_of_certificates_ = new TemporaryFolder;
    const std::string command =
        "tools/make_test_ca.sh " + folder_of_certificates_->path() + " server honest offender >/dev/null 2>&1";
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
  }
  static void TearDownTestSuite() { delete folder_of_certificates_; }

  const std::string& way() const { return GetParam(); }
  bool tls() const { return way() == "thrift_tls"; }

  // Of a worker of this name.
  Settings SettingsOf(const std::string& name) const {
    Settings settings = {{"security.secret", kSecret}};
    settings["worker.listen"] = way() == "thrift_unix"  ? "unix://"
                                : way() == "thrift_tcp" ? "tcp://127.0.0.1:0"
                                : tls()                 ? "tls://127.0.0.1:0"
                                                        : "uv://127.0.0.1:0";
    if (tls()) {
      settings["transport.thrift.ca"] = folder_of_certificates_->File("ca.pem");
      settings["transport.thrift.certificate"] = folder_of_certificates_->File(name + ".pem");
      settings["transport.thrift.key"] = folder_of_certificates_->File(name + ".key");
    }
    return settings;
  }

  void Start(const Settings& settings = {}, int files = 0) {
    std::vector<std::string> arguments = {folder_.File("address"), folder_.File("log"),
                                          std::to_string(files),   "worker.name=server",
                                          "worker.id=1",           "transport.name=" + TransportOf(way())};
    Settings all = SettingsOf("server");
    all.insert(settings.begin(), settings.end());
    for (const auto& [key, value] : all) arguments.push_back(key + "=" + value);
    server_ = std::make_unique<Process>("server_main", arguments);
    ASSERT_TRUE(Eventually([this] { return !ReadFile("address").empty(); }));
    address_ = ReadFile("address");
    honest_ = OpenWorker(WorkerConfig(TransportOf(way()), "", "honest", 0, SettingsOf("honest")));
    AddPeer(honest_, 1, "server", address_);
    CallOnce();
  }
  void TearDown() override {
    if (server_) {
      CallOnce();  // it lives
      Call(gf_worker_close, honest_, kPatience);
      honest_.reset();
      server_->CloseInput();
      EXPECT_EQ(server_->Wait(), 0) << ReadFile("log");
    }
    LiveTest::TearDown();
  }

  std::string ReadFile(const std::string& name) const {
    std::ifstream in(folder_.File(name));
    return {(std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>()};
  }
  void CallOnce() {
    EXPECT_EQ(ReadFloats(RemoteOp(honest_, "server", {}, "aten::add.Tensor", Floats({1}, {1}), Floats({1}, {2})))[0],
              3);
  }
  Latencies CallFor(std::chrono::milliseconds time) {
    Latencies latencies;
    const auto end = steady_clock::now() + time;
    do {
      const auto begin = steady_clock::now();
      CallOnce();
      latencies.us.push_back(std::chrono::duration<double, std::micro>(steady_clock::now() - begin).count());
    } while (steady_clock::now() < end);
    return latencies;
  }
  // KiB.
  int64_t Resident() const {
    std::ifstream status("/proc/" + std::to_string(server_->pid()) + "/status");
    std::string line;
    while (std::getline(status, line)) {
      if (line.rfind("VmRSS:", 0) == 0) return std::stoll(line.substr(6));
    }
    return 0;
  }
  bool LogHas(const std::vector<std::string>& parts) const {
    std::istringstream lines(ReadFile("log"));
    std::string line;
    while (std::getline(lines, line)) {
      if (std::all_of(parts.begin(), parts.end(), [&](const auto& part) { return line.find(part) != line.npos; })) {
        return true;
      }
    }
    return false;
  }

  // As a member of the group connects: with TLS where there is TLS.
  Socket Connect() const {
    const Certificate certificate{folder_of_certificates_->path(), "offender"};
    return Socket(address_, tls() ? &certificate : nullptr);
  }

  // Lets `count` offenders connect and do their thing, while and after which an honest peer calls. Each keeps its
  // connection. The log shall have a line with all of `logged`.
  void LetLoose(const std::string& name, const std::function<void(Socket&)>& offend,
                const std::vector<std::string>& logged, int count = kOffenders) {
    LetLoose(
        name, [this] { return Connect(); }, offend, logged, count);
  }
  void LetLoose(const std::string& name, const std::function<Socket()>& connect,
                const std::function<void(Socket&)>& offend, const std::vector<std::string>& logged,
                int count = kOffenders) {
    SCOPED_TRACE(name);
    {
      Socket first = connect();  // what is made once for all of its kind
      offend(first);
    }
    Latencies before = CallFor(std::chrono::milliseconds(100));
    const int64_t resident = Resident();
    std::vector<Socket> sockets;
    std::atomic<bool> done{false};
    std::thread offenders([&] {
      for (int i = 0; i < count; ++i) {
        sockets.push_back(connect());
        offend(sockets.back());
      }
      done = true;
    });
    Latencies during;
    while (!done) {
      const Latencies more = CallFor(std::chrono::milliseconds(20));
      during.us.insert(during.us.end(), more.us.begin(), more.us.end());
    }
    offenders.join();
    const Latencies more = CallFor(std::chrono::milliseconds(50));
    during.us.insert(during.us.end(), more.us.begin(), more.us.end());
    const int64_t risen = Resident() - resident;
    std::printf("%-28s %5d offenders: %6.1f KiB each; p50 %4.0f -> %4.0f us, p99 %5.0f -> %5.0f us, %zu calls\n",
                name.c_str(), count, static_cast<double>(risen) / count, before.Percentile(0.5), during.Percentile(0.5),
                before.Percentile(0.99), during.Percentile(0.99), during.us.size());
    EXPECT_LT(risen, int64_t{1024} * count);
    EXPECT_LT(during.Percentile(0.5), std::max(2 * before.Percentile(0.99), kBusyMachineUs));
    EXPECT_TRUE(Eventually([&] { return LogHas(logged); })) << ReadFile("log").substr(0, 4000);
    sockets.clear();
    CallOnce();
  }

  static Identity Offender(const std::string& secret) {
    Identity identity;
    identity.group = "default";
    identity.name = "offender";
    identity.id = 66;
    identity.incarnation = 1;
    identity.secret = secret;
    return identity;
  }
  // The introduction of a member; the next frame has number 2.
  static void Introduce(Socket& socket) {
    const Identity self = Offender(kSecret);
    DialHandshake handshake(&self, 1, "server");
    socket.Send(FrameOf(handshake.hello(), 0));
    auto decoder = gradferry::FrameDecoder::New(socket.NextHeader(), {}, {});
    ASSERT_TRUE(decoder.ok()) << decoder.status().ToString();
    const auto reply = (*decoder)->Finish();
    ASSERT_TRUE(handshake.OnReply(std::get<HelloReply>(reply->message), {}).ok());
    socket.Send(FrameOf(*handshake.proof(), 1));
  }

  static TemporaryFolder* folder_of_certificates_;
  const TemporaryFolder folder_;
  std::unique_ptr<Process> server_;
  std::string address_;
  Worker honest_;
};

TemporaryFolder* SocketsTest::folder_of_certificates_ = nullptr;

// A Call up to the count of its arguments.
std::string CallHeader() {
  auto frame = EncodeFrame(gradferry::Call{}, {}, {});
  frame->header.resize(frame->header.size() - 4);
  return frame->header;
}

const char* NameOfWay(const std::string& way) {
  return way == "thrift_tcp" ? "Tcp" : way == "thrift_unix" ? "Unix" : way == "thrift_tls" ? "Tls" : "TensorPipe";
}

// ---- The thrift transport ------------------------------------------------------------------------------------------

class ThriftSocketsTest : public SocketsTest {};
INSTANTIATE_TEST_SUITE_P(Over, ThriftSocketsTest, ::testing::Values("thrift_tcp", "thrift_unix", "thrift_tls"),
                         [](const auto& info) { return NameOfWay(info.param); });

TEST_P(ThriftSocketsTest, StrangersWithoutAnIntroduction) {
  Start({{"limits.pending_connections", "32"}});
  using namespace std::string_literals;
  std::mt19937_64 random(1);
  LetLoose("connect and close", [&](Socket& s) { Socket gone(std::move(s)); },
           {"a connection from", "ended before it said anything"});
  LetLoose("silence", [](Socket&) {}, {"RESOURCE_EXHAUSTED", "limits.pending_connections"});
  LetLoose("slow drip", [](Socket& s) { s.Send(Framed(std::string(100, 'x')).substr(0, 7)); },
           {"RESOURCE_EXHAUSTED", "limits.pending_connections"});
  LetLoose("random bytes",
           [&](Socket& s) {
             std::string noise(4096, '\0');
             for (char& byte : noise) byte = static_cast<char>(random());
             s.Send(noise);
           },
           {"DATA_LOSS", "no Thrift message"});
  LetLoose("HTTP", [](Socket& s) { s.Send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"); }, {"DATA_LOSS", "HTTP"});
  LetLoose("TLS on a plain port",
           [](Socket& s) { s.Send("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"s + std::string(200, '\x01')); },
           {"DATA_LOSS", "TLS"});
  const std::string good = Framed("0123456789", {"x"});
  const auto with = [&](size_t offset, const std::string& bytes) {
    return std::string(good).replace(offset, bytes.size(), bytes);
  };
  LetLoose("a frame of 2^31 bytes", [&](Socket& s) { s.Send(with(0, "\x7f\xff\xff\xff"s)); }, {"DATA_LOSS"});
  LetLoose("a header of 2^31 bytes", [&](Socket& s) { s.Send(with(24, "\x7f\xff\xff\xff"s)); }, {"DATA_LOSS"});
  LetLoose("10^6 segments", [&](Socket& s) { s.Send(with(28 + 10 + 4, Big(1000000, 4))); }, {"DATA_LOSS"});
  LetLoose("a segment of 2^62 bytes", [&](Socket& s) { s.Send(with(28 + 10 + 8, Big(uint64_t{1} << 62, 8))); },
           {"DATA_LOSS"});
  LetLoose("a frame that is no hello", [](Socket& s) { s.Send(Framed(Sealed(CallHeader() + Little(0, 4), 0))); },
           {"UNAUTHENTICATED", "a Call came before Hello"});
  LetLoose("tensors before the hello",
           [](Socket& s) { s.Send(Framed(Sealed(CallHeader() + Little(0, 4), 0), {std::string(50000, 'x')})); },
           {"UNAUTHENTICATED", "before it introduced itself"});
}

TEST_P(ThriftSocketsTest, SecretsThatAreWrong) {
  Start();
  const Identity other = Offender("a secret of somebody else");
  LetLoose("a wrong proof",
           [&](Socket& s) {
             DialHandshake handshake(&other, 1, "server");
             s.Send(FrameOf(handshake.hello(), 0));
             s.NextHeader();
             HelloProof proof;
             proof.proof.emplace().fill(9);
             s.Send(FrameOf(proof, 1));
           },
           {"of worker offender", "UNAUTHENTICATED", "wrong proof"});
  const Identity none = Offender("");
  LetLoose("no secret", [&](Socket& s) { s.Send(FrameOf(DialHandshake(&none, 1, "server").hello(), 0)); },
           {"of worker offender", "UNAUTHENTICATED", "has none"});
  const Identity ours = Offender(kSecret);
  DialHandshake overheard(&ours, 1, "server");
  Socket socket = Connect();
  socket.Send(FrameOf(overheard.hello(), 0));
  auto decoder = gradferry::FrameDecoder::New(socket.NextHeader(), {}, {});
  ASSERT_TRUE(decoder.ok());
  const auto reply = (*decoder)->Finish();
  ASSERT_TRUE(overheard.OnReply(std::get<HelloReply>(reply->message), {}).ok());
  LetLoose("an introduction replayed",
           [&](Socket& s) { s.Send(FrameOf(overheard.hello(), 0) + FrameOf(*overheard.proof(), 1)); },
           {"of worker offender", "UNAUTHENTICATED", "wrong proof"});
}

TEST_P(ThriftSocketsTest, MembersThatSendWhatIsNone) {
  Start();
  const auto member = [](const std::string& header) {
    return [header](Socket& s) {
      Introduce(s);
      s.Send(Framed(Sealed(header, 2)));
    };
  };
  LetLoose("hello, then noise",
           [](Socket& s) {
             Introduce(s);
             s.Send(std::string(5000, '\x55'));
           },
           {"worker offender", "DATA_LOSS"});
  LetLoose("2^31 arguments", member(CallHeader() + Little(1u << 31, 4)), {"worker offender", "DATA_LOSS", "arguments"});
  LetLoose("10^5 + 1 tensors", member(CallHeader() + Little(100001, 4) + Repeated(std::string("\x06\0", 2), 100001)),
           {"worker offender", "RESOURCE_EXHAUSTED", "limits.tensors"}, 20);
  LetLoose("10^4 levels", member(CallHeader() + Repeated(std::string("\x01\0\0\0\x07", 5), 10000) + Little(0, 4)),
           {"worker offender", "RESOURCE_EXHAUSTED", "limits.nesting"});
  LetLoose("a tensor of 2^62 elements",
           member(CallHeader() + Little(1, 4) + std::string("\x06\x01\0\x06\x01", 5) + Little(uint64_t{1} << 62, 8)),
           {"worker offender", "DATA_LOSS"});
}

TEST_P(ThriftSocketsTest, AThousandInSilence) {
  Start();
  LetLoose(
      "a thousand in silence", [](Socket&) {}, {"RESOURCE_EXHAUSTED", "limits.pending_connections"},
      tls() ? 200 : 1000);
}

TEST_P(ThriftSocketsTest, MoreThanTheFilesThatMayBeOpen) {
  // As many as it has, and a few.
  Start({{"limits.pending_connections", "1000"}}, 60);
  LetLoose(
      "more than its files", [](Socket&) {}, {"no file descriptors are left"}, 200);
}

// Introduces itself, and then asks for so many replies of 4 KiB, none of which it reads.
void NeverRead(Socket& socket, uint64_t calls) {
  const std::string call = [] {
    gradferry::Call message;
    message.time_left = INT64_MAX;
    message.target = gradferry::CallTarget::kOperator;
    message.record = false;
    message.name = "aten::ones";
    message.arguments = {gradferry::Value(gradferry::ValueList{gradferry::Value(int64_t{1000})})};
    return EncodeFrame(message, {}, {})->header;
  }();
  std::string frames;
  for (uint64_t i = 0; i < calls; ++i) {
    std::string header = call;
    std::memcpy(header.data() + 5, &i, sizeof i);
    frames += Framed(Sealed(header, 2 + i));
  }
  socket.Send(frames);
}

TEST_P(ThriftSocketsTest, WhoNeverReads) {
  Start();
  LetLoose(
      "never reads",
      [&](Socket& s) {
        Introduce(s);
        NeverRead(s, 200);
      },
      {}, 20);
}

TEST_P(ThriftSocketsTest, WhoNeverReadsAndAsksOn) {
  Start({{"limits.memory_per_peer", "1048576"}});
  LetLoose(
      "never reads and asks on",
      [&](Socket& s) {
        Introduce(s);
        NeverRead(s, 20000);
      },
      {"RESOURCE_EXHAUSTED", "limits.memory_per_peer (1048576)"}, 20);
}

// ---- Its TLS port, without TLS -------------------------------------------------------------------------------------

class TlsPortTest : public SocketsTest {};
INSTANTIATE_TEST_SUITE_P(Over, TlsPortTest, ::testing::Values("thrift_tls"),
                         [](const auto& info) { return NameOfWay(info.param); });

TEST_P(TlsPortTest, StrangersWithoutTls) {
  Start({{"transport.thrift.handshake_timeout_ms", "2000"}});
  const auto plain = [this] { return Socket(address_); };
  const std::vector<std::string> refused = {"refused a connection from 127.0.0.1:"};
  const auto refused_for = [&](const std::string& why) { return std::vector<std::string>{refused[0], why}; };
  std::mt19937_64 random(1);
  LetLoose(
      "connect and close", plain, [](Socket& s) { Socket gone(std::move(s)); }, refused);
  LetLoose("slow drip", plain, [](Socket& s) { s.Send("\x16\x03"); }, {"no whole message within 2000 ms"});
  LetLoose(
      "random bytes", plain,
      [&](Socket& s) {
        std::string noise(4096, '\0');
        for (char& byte : noise) byte = static_cast<char>(random());
        s.Send(noise);
      },
      refused);
  LetLoose(
      "HTTP", plain, [](Socket& s) { s.Send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"); },
      refused_for("http request"));
  LetLoose(
      "a frame without TLS", plain, [](Socket& s) { s.Send(Framed("0123456789", {"x"})); }, refused);
  LetLoose(
      "a TLS record of 2^14 bytes", plain,
      [](Socket& s) { s.Send(std::string("\x16\x03\x01\x40\x00\x01\xff\xff\xff", 9) + std::string(2000, 'x')); },
      refused);
  const Certificate none;
  LetLoose(
      "TLS without a certificate", [&] { return Socket(address_, &none); }, [](Socket&) {},
      refused_for("did not return a certificate"));
  LetLoose(
      "a thousand in silence", plain, [](Socket&) {}, {"no whole message within 2000 ms"}, 1000);
}

// ---- TensorPipe ----------------------------------------------------------------------------------------------------
// Only what does not make TensorPipe abort the process; see docs/security.md.

class TensorPipeSocketsTest : public SocketsTest {};
INSTANTIATE_TEST_SUITE_P(Over, TensorPipeSocketsTest, ::testing::Values("tensorpipe"),
                         [](const auto& info) { return NameOfWay(info.param); });

TEST_P(TensorPipeSocketsTest, StrangersThatSayNoWord) {
  Start();
  LetLoose("connect and close", [](Socket& s) { Socket gone(std::move(s)); },
           {"the listener died of a bad connection", "reopening it"});
  LetLoose("silence", [](Socket&) {}, {});
  LetLoose("slow drip", [](Socket& s) { s.Send(std::string(3, '\0')); }, {"listening at", "again, after"});
  LetLoose(
      "a thousand in silence", [](Socket&) {}, {}, 1000);
}

TEST_P(TensorPipeSocketsTest, MoreThanTheFilesThatMayBeOpen) {
  Start({}, 100);
  LetLoose(
      "more than its files", [](Socket&) {}, {}, 200);
  // With the offenders gone there is room for others.
  const Worker late = OpenWorker(WorkerConfig("tensorpipe", "", "late", 2, SettingsOf("late")));
  AddPeer(late, 1, "server", address_);
  EXPECT_TRUE(Eventually([&] {
    return ErrorOf([&] {
             RemoteOp(late, "server", {}, "aten::add.Tensor", Floats({1}, {1}), Floats({1}, {2}));
           }).code == GF_OK;
  }));
  Call(gf_worker_close, late, kPatience);
}

}  // namespace
}  // namespace gf
