// Clients that are no workers, or broken ones, on real sockets: their connection ends, with a reason, and a worker that
// talks meanwhile notices nothing.
#include <fcntl.h>
#include <sys/resource.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/unit/thrift/frame_testing.h"
#include "tests/unit/thrift/test_host.h"

namespace gradferry::thrift::testing {
namespace {

// A listener with a peer that behaves. At the end of a test it must still be served.
class Hostile : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    ASSERT_EQ(server_.Listen(GetParam()).code, GF_OK);
    good_ = client_.Connect(server_.address());
    in_ = server_.Accepted();
    Talk();
  }
  void TearDown() override { Talk(); }

  void Talk() {
    const size_t before = server_.Locked([&] { return in_->frames.size(); });
    EXPECT_EQ(client_.Send(good_, {"good", {Bytes(100000, before)}}).code, GF_OK);
    EXPECT_TRUE(server_.WaitFrames(in_, before + 1));
    EXPECT_EQ(server_.Send(in_, {"back", {}}).code, GF_OK);
    EXPECT_TRUE(client_.WaitFrames(good_, before + 1));
  }

  // Sends the bytes as a stranger, and expects the end with these words.
  void ExpectRefused(const std::string& bytes, const std::string& named) {
    const size_t number = accepted_++;
    Stranger stranger(server_.address());
    (void)stranger.Send(bytes);
    EXPECT_TRUE(stranger.WaitUntilClosed()) << named;
    Peer* peer = server_.Accepted(number);
    ASSERT_TRUE(server_.WaitClosed(peer));
    EXPECT_EQ(peer->closed_code, GF_DATA_LOSS);
    EXPECT_NE(peer->closed_text.find(named), std::string::npos) << peer->closed_text;
  }

  Host server_{R"({"handshake_timeout_ms": 60000})"};
  Host client_;
  Peer* good_ = nullptr;
  Peer* in_ = nullptr;
  size_t accepted_ = 1;
};

INSTANTIATE_TEST_SUITE_P(Over, Hostile, ::testing::Values(std::string("unix://"), std::string("tcp://127.0.0.1:0")),
                         [](const auto& info) { return info.index == 0 ? "Unix" : "Tcp"; });

TEST_P(Hostile, ConnectAndClose) {
  for (int i = 0; i < 200; ++i) Stranger stranger(server_.address());
}

TEST_P(Hostile, OtherProtocols) {
  using namespace std::string_literals;
  ExpectRefused("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP");
  ExpectRefused("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"s + Bytes(200, 1), "TLS handshake");
  ExpectRefused(Bytes(1000, 2), "no Thrift message");
  ExpectRefused(std::string(1000, '\0'), "no Thrift message");
  ExpectRefused(std::string(1000, '\xff'), "no Thrift message");
}

TEST_P(Hostile, LengthBombs) {
  using namespace std::string_literals;
  const std::string good = Encoded({"0123456789", {"x"}});
  const auto with = [&](size_t offset, const std::string& bytes) {
    return std::string(good).replace(offset, bytes.size(), bytes);
  };
  ExpectRefused(with(0, "\x7f\xff\xff\xff"s), "its parts make");
  ExpectRefused(with(0, "\xff\xff\xff\xff"s), "negative");
  ExpectRefused(with(24, "\x7f\xff\xff\xff"s), "2147483647 bytes");
  ExpectRefused(with(kPrefixSize + 10 + 4, "\x00\x0F\x42\x40"s), "1000000 segments");
  ExpectRefused(with(kPrefixSize + 10 + 8, "\x40\x00\x00\x00\x00\x00\x00\x00"s), "longer than the frame");
  // Structs in structs instead of the header; nobody goes into them.
  std::string nested = with(21, "\x0C\x00\x01"s).substr(0, 24);
  for (int i = 0; i < 10000; ++i) nested += "\x0C\x00\x01"s;
  ExpectRefused(nested, "begin with its header");
}

TEST_P(Hostile, AWholeFrameAndThenGarbage) {
  const size_t number = accepted_++;
  Stranger stranger(server_.address());
  EXPECT_TRUE(stranger.Send(Encoded({"hello", {"segment"}}) + Bytes(100, 3)));
  Peer* peer = server_.Accepted(number);
  ASSERT_TRUE(server_.WaitClosed(peer));
  EXPECT_EQ(peer->frames.size(), 1u);
  EXPECT_EQ(peer->closed_code, GF_DATA_LOSS) << peer->closed_text;
}

TEST_P(Hostile, AFrameThatEndsInTheMiddle) {
  const std::string whole = Encoded({Bytes(100, 1), {Bytes(50000, 2), Bytes(10, 3)}});
  for (const size_t cut : {size_t{1}, size_t{10}, size_t{100}, size_t{200}, size_t{30000}, whole.size() - 1}) {
    const size_t number = accepted_++;
    Stranger stranger(server_.address());
    EXPECT_TRUE(stranger.Send(whole.substr(0, cut)));
    stranger.Close();
    Peer* peer = server_.Accepted(number);
    ASSERT_TRUE(server_.WaitClosed(peer));
    EXPECT_EQ(peer->closed_code, GF_PEER_LOST) << peer->closed_text;
    EXPECT_NE(peer->closed_text.find("within a message"), std::string::npos) << peer->closed_text;
    EXPECT_EQ(peer->frames.size(), 0u);
  }
}

// The peer takes no bytes: what is sent to it waits, is reported when it ends, and holds up nobody else.
TEST_P(Hostile, APeerThatNeverReads) {
  const size_t number = accepted_++;
  Stranger stranger(server_.address());
  Peer* peer = server_.Accepted(number);
  const std::string bytes = Bytes(1 << 20, 4);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(server_.Send(peer, {"much", {bytes}}).code, GF_OK);
  Talk();
  EXPECT_LT(server_.Locked([&] { return peer->sent.size(); }), 20u);
  stranger.Close();
  ASSERT_TRUE(server_.WaitClosed(peer));
  EXPECT_EQ(peer->sent.size(), 20u);
}

TEST(Handshake, WhoSendsNoWholeMessageInTimeIsSentAway) {
  Host server(R"({"address": "tcp://127.0.0.1:0", "handshake_timeout_ms": 200})");
  ASSERT_EQ(server.Listen().code, GF_OK);
  Stranger silent(server.address()), slow(server.address());
  const std::string whole = Encoded({Bytes(100 * 1000, 1), {}});
  // A byte now and then does not help.
  std::thread drip([&] {
    for (const char byte : whole) {
      if (!slow.Send(std::string(1, byte))) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  EXPECT_TRUE(silent.WaitUntilClosed());
  drip.join();
  for (size_t i = 0; i < 2; ++i) {
    Peer* peer = server.Accepted(i);
    ASSERT_TRUE(server.WaitClosed(peer));
    EXPECT_EQ(peer->closed_code, GF_PEER_LOST);
    EXPECT_NE(peer->closed_text.find("no whole message within 200 ms"), std::string::npos) << peer->closed_text;
  }
}

TEST(Handshake, IsOverWithTheFirstMessage) {
  Host server(R"({"address": "tcp://127.0.0.1:0", "handshake_timeout_ms": 100})"), client;
  ASSERT_EQ(server.Listen().code, GF_OK);
  Peer* out = client.Connect(server.address());
  EXPECT_EQ(client.Send(out, {"hello", {}}).code, GF_OK);
  Peer* in = server.Accepted();
  ASSERT_TRUE(server.WaitFrames(in, 1));
  // Another connection shows that the time is over.
  Stranger silent(server.address());
  EXPECT_TRUE(silent.WaitUntilClosed());
  EXPECT_EQ(client.Send(out, {"still here", {}}).code, GF_OK);
  EXPECT_TRUE(server.WaitFrames(in, 2));
}

// All file descriptors of the process but so many.
class FewDescriptors {
 public:
  explicit FewDescriptors(size_t left) {
    for (int fd; (fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;) all_.push_back(fd);
    EXPECT_EQ(errno, EMFILE);
    for (; left > 0 && !all_.empty(); --left) Free();
  }
  ~FewDescriptors() {
    while (!all_.empty()) Free();
  }

 private:
  void Free() {
    ::close(all_.back());
    all_.pop_back();
  }
  std::vector<int> all_;
};

TEST(Descriptors, NoneLeftRefusesConnectionsAndEndsNothing) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit few = before;
  few.rlim_cur = 128;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  {
    Host server, client;
    ASSERT_EQ(server.Listen().code, GF_OK);
    Peer* good = client.Connect(server.address());
    EXPECT_EQ(client.Send(good, {"hello", {}}).code, GF_OK);
    Peer* in = server.Accepted();
    ASSERT_TRUE(server.WaitFrames(in, 1));
    {
      Stranger first(server.address(), Stranger::When::kLater), second(server.address(), Stranger::When::kLater);
      const FewDescriptors none_left(0);
      first.Connect();
      second.Connect();
      EXPECT_TRUE(first.WaitUntilClosed());
      EXPECT_TRUE(second.WaitUntilClosed());
      EXPECT_TRUE(server.WaitLog("ulimit -n", 1));
      EXPECT_EQ(client.Send(good, {"again", {Bytes(1000000, 1)}}).code, GF_OK);
      EXPECT_TRUE(server.WaitFrames(in, 2));
      Peer* none = client.Connect(server.address());
      ASSERT_TRUE(client.WaitClosed(none));
      EXPECT_EQ(none->closed_code, GF_RESOURCE_EXHAUSTED) << none->closed_text;
    }
    Peer* late = client.Connect(server.address());
    EXPECT_EQ(client.Send(late, {"late", {}}).code, GF_OK);
    EXPECT_TRUE(server.WaitFrames(server.Accepted(1), 1));
  }
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
}

}  // namespace
}  // namespace gradferry::thrift::testing
