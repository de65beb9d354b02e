// Where the transport listens, and where it will not.
#include <sys/stat.h>

#include <string>

#include "tests/unit/thrift/test_host.h"

namespace gradferry::thrift::testing {
namespace {

bool Exists(const std::string& path) {
  struct stat found {};
  return ::lstat(path.c_str(), &found) == 0;
}

TEST(Listen, ByDefaultAtASocketThatOnlyThisUserReaches) {
  std::string path;
  {
    Host host;
    ASSERT_EQ(host.Listen().code, GF_OK);
    ASSERT_EQ(host.address().rfind("unix:///", 0), 0u) << host.address();
    path = host.address().substr(7);
    struct stat found {};
    ASSERT_EQ(::stat(path.substr(0, path.rfind('/')).c_str(), &found), 0);
    EXPECT_EQ(found.st_mode & 0777, 0700u);
    EXPECT_EQ(found.st_uid, ::geteuid());
    EXPECT_TRUE(Exists(path));
  }
  EXPECT_FALSE(Exists(path)) << "it was not taken away";
}

TEST(Listen, AtAPathAndTakesAwayWhatTheDeadHaveLeft) {
  const Folder folder;
  const std::string address = "unix://" + folder.File("socket");
  {
    // Somebody listened here and was killed.
    const SocketAddress where = [&] {
      Address parsed;
      EXPECT_TRUE(ParseAddress(address, AddressUse::kListen, &parsed).ok());
      return ToSocketAddress(parsed);
    }();
    const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
    ASSERT_EQ(::bind(fd, where.get(), where.length), 0);
    ::close(fd);
  }
  ASSERT_TRUE(Exists(folder.File("socket")));
  Host host, other;
  ASSERT_EQ(host.Listen(address).code, GF_OK);
  const Result taken = other.Listen(address);
  EXPECT_EQ(taken.code, GF_ALREADY_EXISTS) << taken;
  EXPECT_NE(taken.text.find(address), std::string::npos) << taken;
  // The one that lives is none the worse for it.
  Peer* peer = other.Connect(address);
  EXPECT_EQ(other.Send(peer, {"x", {}}).code, GF_OK);
  EXPECT_TRUE(host.WaitFrames(host.Accepted(1), 1)) << "the first was the question whether anybody listens";
}

TEST(Listen, TakesNoOtherFileAway) {
  const Folder folder;
  ASSERT_EQ(std::system(("touch " + folder.File("file")).c_str()), 0);
  Host host;
  EXPECT_EQ(host.Listen("unix://" + folder.File("file")).code, GF_ALREADY_EXISTS);
  EXPECT_TRUE(Exists(folder.File("file")));
  EXPECT_EQ(host.Listen("unix://" + folder.File("no/such/folder")).code, GF_INVALID_ARGUMENT);
}

TEST(Listen, RefusesToSendInTheClearBeyondThisMachine) {
  Host host(kTcp);
  const Result listen = host.Listen("tcp://192.0.2.77:0");
  EXPECT_EQ(listen.code, GF_FAILED_PRECONDITION) << listen;
  EXPECT_NE(listen.text.find("insecure"), std::string::npos) << listen;
  EXPECT_NE(listen.text.find("tls://"), std::string::npos) << listen;
  Peer* peer = nullptr;
  const Result connect = host.TryConnect("tcp://192.0.2.77:5", &peer);
  EXPECT_EQ(connect.code, GF_FAILED_PRECONDITION) << connect;
  EXPECT_NE(connect.text.find("insecure"), std::string::npos) << connect;
}

TEST(Listen, OnAllInterfacesNeedsAnAddressToTell) {
  {
    Host host(R"({"insecure": true})");
    const Result result = host.Listen("tcp://0.0.0.0:0");
    EXPECT_EQ(result.code, GF_FAILED_PRECONDITION) << result;
    EXPECT_NE(result.text.find("transport.thrift.advertise"), std::string::npos) << result;
  }
  Host host(R"({"insecure": true, "advertise": "127.0.0.1"})"), client;
  ASSERT_EQ(host.Listen("tcp://0.0.0.0:0").code, GF_OK);
  EXPECT_EQ(host.address().rfind("tcp://127.0.0.1:", 0), 0u) << host.address();
  Peer* peer = client.Connect(host.address());
  EXPECT_EQ(client.Send(peer, {"x", {}}).code, GF_OK);
  EXPECT_TRUE(host.WaitFrames(host.Accepted(), 1));
}

TEST(Listen, RefusesWhatIsNoAddress) {
  Host host(R"({"insecure": true})");
  for (const char* address :
       {"uv://127.0.0.1:0", "127.0.0.1:0", "tcp://localhost:0", "tcp://127.0.0.1", "tcp://127.0.0.1:65536", "tcp://",
        "tcp://127.0.0.1:x", "tcp://[::1:0", "tcp://::1:0", "tcp://[127.0.0.1]:0", "tcp://224.0.0.1:0",
        "unix://relative", "unix:/path", "://", "tls://1.2.3:0"}) {
    const Result result = host.Listen(address);
    EXPECT_EQ(result.code, GF_INVALID_ARGUMENT) << address << ": " << result;
    EXPECT_NE(result.text.find(address), std::string::npos) << result;
  }
  const Result path = host.Listen("unix:///" + std::string(200, 'x'));
  EXPECT_EQ(path.code, GF_INVALID_ARGUMENT) << path;
  const Result nobody = host.Listen("tcp://198.51.100.7:0");
  EXPECT_EQ(nobody.code, GF_INVALID_ARGUMENT) << nobody;
}

TEST(Listen, HappensOnce) {
  Host host;
  ASSERT_EQ(host.Listen().code, GF_OK);
  EXPECT_EQ(host.Listen().code, GF_FAILED_PRECONDITION);
}

TEST(Connect, RefusesWhatNobodyCanListenAt) {
  Host host(R"({"insecure": true})");
  for (const char* address : {"unix://", "tcp://127.0.0.1:0", "tcp://0.0.0.0:5", "tls://[::]:5"}) {
    Peer* peer = nullptr;
    const Result result = host.TryConnect(address, &peer);
    EXPECT_EQ(result.code, GF_INVALID_ARGUMENT) << address << ": " << result;
  }
}

TEST(Connect, GivesUpInTime) {
  // It accepts nothing: its queue is full, and the kernel answers no more.
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(where);
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&where), length), 0);
  ASSERT_EQ(::listen(listener, 0), 0);
  ASSERT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&where), &length), 0);
  const std::string address = "tcp://127.0.0.1:" + std::to_string(ntohs(where.sin_port));
  Host host(R"({"connect_timeout_ms": 200})");
  std::vector<Peer*> peers;
  for (int i = 0; i < 5; ++i) peers.push_back(host.Connect(address));
  ASSERT_TRUE(host.WaitClosed(peers.back()));
  EXPECT_EQ(peers.back()->closed_code, GF_UNAVAILABLE);
  EXPECT_NE(peers.back()->closed_text.find("no answer within 200 ms"), std::string::npos) << peers.back()->closed_text;
  ::close(listener);
}

}  // namespace
}  // namespace gradferry::thrift::testing
