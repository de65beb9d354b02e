// Offenders with plain sockets against a worker in another process, over TCP: whatever they do, it lives, the calls of
// an honest peer go on, its memory does not rise by more than 1 MiB for each of them, and its log says with a code what
// was wrong. Latencies are printed, not judged: the machine that runs this is not ours alone.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <fstream>
#include <random>
#include <thread>

#include "impl/rpc/handshake.h"
#include "impl/wire/frame.h"
#include "impl/wire/seal.h"
#include "tests/support/c_abi/group.h"
#include "tests/support/c_abi/process.h"

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
constexpr int kOffenders = 100;

// ---- Bytes ---------------------------------------------------------------------------------------------------------

std::string Big(uint64_t value, int bytes) {
  std::string text;
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) text += static_cast<char>(value >> shift);
  return text;
}

// The bytes around a frame: Thrift's framed transport, binary protocol, one-way message `frame`.
std::string Framed(const std::string& header, const std::vector<std::string>& segments = {}) {
  std::string body = Big(0x80010004, 4) + Big(5, 4) + "frame" + Big(0, 4);
  body += std::string("\x0B\x00\x01", 3) + Big(header.size(), 4) + header;
  body += std::string("\x0F\x00\x02\x0A", 4) + Big(segments.size(), 4);
  for (const std::string& segment : segments) body += Big(segment.size(), 8);
  body += std::string("\x0F\x00\x03\x0B", 4) + Big(segments.size(), 4);
  for (const std::string& segment : segments) body += Big(segment.size(), 4) + segment;
  body += '\0';
  return Big(body.size(), 4) + body;
}

std::string Sealed(std::string header, uint64_t sequence) {
  gradferry::AppendSeal(header, {sequence, std::nullopt});
  return header;
}

std::string FrameOf(const Message& message, uint64_t sequence) {
  return Framed(Sealed(EncodeFrame(message, {}, {})->header, sequence));
}

// ---- Sockets -------------------------------------------------------------------------------------------------------

class Socket {
 public:
  // "tcp://127.0.0.1:4711"
  explicit Socket(const std::string& address) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0;
  }
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)), connected_(other.connected_) {}
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  bool connected() const { return connected_; }

  // As much as goes out; the other side may have hung up.
  void Send(const std::string& bytes) {
    size_t sent = 0;
    while (sent < bytes.size()) {
      const ssize_t done = send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (done > 0) {
        sent += static_cast<size_t>(done);
        continue;
      }
      if (done < 0 && errno != EAGAIN) return;
      pollfd wait{fd_, POLLOUT, 0};
      if (poll(&wait, 1, 200) <= 0) return;
    }
  }
  // So many bytes, or "" when they do not come.
  std::string Receive(size_t bytes) {
    std::string text(bytes, '\0');
    size_t got = 0;
    while (got < bytes) {
      pollfd wait{fd_, POLLIN, 0};
      if (poll(&wait, 1, 20000) <= 0) return "";
      const ssize_t done = recv(fd_, text.data() + got, bytes - got, 0);
      if (done <= 0) return "";
      got += static_cast<size_t>(done);
    }
    return text;
  }
  // Without waiting: what has come is thrown away; whether the other side has hung up.
  bool HungUp() {
    char ignored[4096];
    for (;;) {
      const ssize_t done = recv(fd_, ignored, sizeof(ignored), MSG_DONTWAIT);
      if (done == 0 || (done < 0 && errno != EAGAIN)) return true;
      if (done < 0) return false;
    }
  }
  // The header of the next frame, without its seal.
  std::string NextHeader() {
    const std::string length = Receive(4);
    if (length.empty()) return "";
    const auto at = [](const std::string& text, size_t offset) {
      uint32_t value;
      std::memcpy(&value, text.data() + offset, 4);
      return ntohl(value);
    };
    const std::string body = Receive(at(length, 0));
    if (body.size() < 24) return "";
    return body.substr(24, at(body, 20) - gradferry::kSealBytes);
  }

 private:
  int fd_;
  bool connected_ = false;
};

// ---- The worker and its honest peer --------------------------------------------------------------------------------

struct Latencies {
  std::vector<double> us;
  double Percentile(double p) {
    if (us.empty()) return 0;
    std::sort(us.begin(), us.end());
    return us[std::min(us.size() - 1, static_cast<size_t>(p * static_cast<double>(us.size())))];
  }
};

class SocketsTest : public LiveTest {
 protected:
  void Start(const Settings& settings = {}, int files = 0) {
    std::vector<std::string> arguments = {folder_.File("address"),
                                          folder_.File("log"),
                                          std::to_string(files),
                                          "worker.name=server",
                                          "worker.id=1",
                                          "transport.name=thrift",
                                          "worker.listen=tcp://127.0.0.1:0"};
    Settings all = settings;
    all.emplace("security.secret", kSecret);
    for (const auto& [key, value] : all) arguments.push_back(key + "=" + value);
    server_ = std::make_unique<Process>("server_main", arguments);
    ASSERT_TRUE(Eventually([this] { return !ReadFile("address").empty(); }));
    address_ = ReadFile("address");
    honest_ =
        OpenWorker(WorkerConfig("thrift", "", "honest", 0,
                                {{"security.secret", all["security.secret"]}, {"worker.listen", "tcp://127.0.0.1:0"}}));
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

  // Lets `count` offenders do their thing, while and after which an honest peer calls. Each keeps its connection.
  void LetLoose(const std::string& name, const std::function<void(Socket&)>& offend,
                const std::vector<std::string>& logged, int count = kOffenders) {
    SCOPED_TRACE(name);
    {
      Socket first(address_);  // what is made once for all of its kind
      offend(first);
    }
    Latencies before = CallFor(std::chrono::milliseconds(150));
    const int64_t resident = Resident();
    std::vector<Socket> sockets;
    std::atomic<bool> done{false};
    std::thread offenders([&] {
      for (int i = 0; i < count; ++i) {
        sockets.emplace_back(address_);
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
    const Latencies more = CallFor(std::chrono::milliseconds(100));
    during.us.insert(during.us.end(), more.us.begin(), more.us.end());
    const int64_t risen = Resident() - resident;
    std::printf("%-28s %5d offenders: %6.1f KiB each; p50 %4.0f -> %4.0f us, p99 %5.0f -> %5.0f us, %zu calls\n",
                name.c_str(), count, static_cast<double>(risen) / count, before.Percentile(0.5), during.Percentile(0.5),
                before.Percentile(0.99), during.Percentile(0.99), during.us.size());
    EXPECT_LT(risen, int64_t{1024} * count);
    if (!logged.empty()) {
      EXPECT_TRUE(Eventually([&] { return LogHas(logged); })) << ReadFile("log").substr(0, 4000);
    }
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

  const TemporaryFolder folder_;
  std::unique_ptr<Process> server_;
  std::string address_;
  Worker honest_;
};

// A Call up to the count of its arguments.
std::string CallHeader() {
  auto frame = EncodeFrame(gradferry::Call{}, {}, {});
  frame->header.resize(frame->header.size() - 4);
  return frame->header;
}

std::string Little(uint64_t value, size_t bytes) { return {reinterpret_cast<const char*>(&value), bytes}; }

std::string Repeated(const std::string& text, size_t count) {
  std::string all;
  for (size_t i = 0; i < count; ++i) all += text;
  return all;
}

TEST_F(SocketsTest, StrangersWithoutAnIntroduction) {
  Start();
  using namespace std::string_literals;
  std::mt19937_64 random(1);
  LetLoose("connect and close", [&](Socket& s) { Socket gone(std::move(s)); }, {});
  LetLoose("silence", [](Socket&) {}, {"RESOURCE_EXHAUSTED", "limits.pending_connections"});
  LetLoose("slow drip", [](Socket& s) { s.Send(Framed(std::string(100, 'x')).substr(0, 7)); }, {});
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

TEST_F(SocketsTest, SecretsThatAreWrong) {
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
  Socket socket(address_);
  socket.Send(FrameOf(overheard.hello(), 0));
  auto decoder = gradferry::FrameDecoder::New(socket.NextHeader(), {}, {});
  ASSERT_TRUE(decoder.ok());
  const auto reply = (*decoder)->Finish();
  ASSERT_TRUE(overheard.OnReply(std::get<HelloReply>(reply->message), {}).ok());
  LetLoose("an introduction replayed",
           [&](Socket& s) { s.Send(FrameOf(overheard.hello(), 0) + FrameOf(*overheard.proof(), 1)); },
           {"of worker offender", "UNAUTHENTICATED", "wrong proof"});
}

TEST_F(SocketsTest, MembersThatSendWhatIsNone) {
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

TEST_F(SocketsTest, AThousandInSilence) {
  Start();
  LetLoose(
      "a thousand in silence", [](Socket&) {}, {"RESOURCE_EXHAUSTED", "limits.pending_connections"}, 1000);
}

TEST_F(SocketsTest, MoreThanTheFilesThatMayBeOpen) {
  // As many as it has, and a few.
  Start({{"limits.pending_connections", "1000"}}, 60);
  LetLoose(
      "more than its files", [](Socket&) {}, {"no file descriptors are left"}, 200);
}

TEST_F(SocketsTest, WhoNeverReads) {
  Start();
  const std::string call = [] {
    gradferry::Call call;
    call.time_left = INT64_MAX;
    call.target = gradferry::CallTarget::kOperator;
    call.record = false;
    call.name = "aten::ones";
    call.arguments = {gradferry::Value(gradferry::ValueList{gradferry::Value(int64_t{1000})})};
    return EncodeFrame(call, {}, {})->header;
  }();
  LetLoose(
      "never reads",
      [&](Socket& s) {
        Introduce(s);
        std::string calls;
        for (uint64_t i = 0; i < 200; ++i) {
          std::string header = call;
          std::memcpy(header.data() + 5, &i, sizeof i);
          calls += Framed(Sealed(header, 2 + i));
        }
        s.Send(calls);
      },
      {}, 20);
}

}  // namespace
}  // namespace gf
