// A listener of TensorPipe dies of one bad connection; the transport comes back.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <string>

#include "tests/unit/tensorpipe/test_host.h"

namespace gradferry::tp::testing {
namespace {

TEST(Healing, ReopensTheListenerAtItsAddress) {
  Pair pair;
  const std::string address = pair.server.address();
  EXPECT_EQ(pair.client.Send(pair.out, {"before", {}}).code, GF_OK);
  ASSERT_TRUE(pair.server.WaitFrames(pair.in, 1));
  for (int round = 1; round <= 3; ++round) {
    {
      RawSocket probe;
      ASSERT_TRUE(probe.Connect(Port(address)));
    }
    ASSERT_TRUE(pair.server.WaitLog("the listener died", round));
    EXPECT_EQ(pair.server.Stats()["listener_restarts"], round);
    ASSERT_TRUE(pair.server.WaitLog("again", round));
    Peer* peer = pair.client.Connect(address);
    EXPECT_EQ(pair.client.Send(peer, {"after", {Bytes(300000, 1)}}).code, GF_OK);
    EXPECT_TRUE(pair.server.WaitFrames(pair.server.Accepted(round), 1));
    EXPECT_EQ(pair.server.address(), address);
  }
  // The connection that stood all the while still does.
  EXPECT_EQ(pair.client.Send(pair.out, {"still", {Bytes(300000, 2)}}).code, GF_OK);
  EXPECT_TRUE(pair.server.WaitFrames(pair.in, 2));
}

// Whoever listens at a port by way of this plugin holds this name meanwhile, so holding it keeps the plugin from the
// port. (A socket that listens there would do so too, but could come between the plugin's look and TensorPipe's.)
class HeldPort {
 public:
  explicit HeldPort(int port) : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const std::string name = "gradferry/uv://127.0.0.1:" + std::to_string(port);
    sockaddr_un where{};
    where.sun_family = AF_UNIX;
    std::memcpy(where.sun_path + 1, name.data(), name.size());
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
    EXPECT_EQ(bind(fd_, reinterpret_cast<const sockaddr*>(&where), length), 0);
  }
  ~HeldPort() { close(fd_); }

 private:
  const int fd_;
};

TEST(Healing, MovesWhenThePortIsTaken) {
  Host server, client;
  ASSERT_EQ(server.Listen().code, GF_OK);
  const std::string before = server.address();
  const HeldPort held(Port(before));
  {
    RawSocket probe;
    ASSERT_TRUE(probe.Connect(Port(before)));
  }
  ASSERT_TRUE(server.WaitAddressOtherThan(before));
  EXPECT_NE(Port(server.address()), Port(before));
  EXPECT_EQ(server.address().substr(server.address().find('#')), before.substr(before.find('#')));
  Peer* peer = client.Connect(server.address());
  EXPECT_EQ(client.Send(peer, {"x", {}}).code, GF_OK);
  EXPECT_TRUE(server.WaitFrames(server.Accepted(), 1));
}

TEST(Healing, EndsWithTheTransport) {
  for (int round = 0; round < 20; ++round) {
    Host server;
    ASSERT_EQ(server.Listen().code, GF_OK);
    const HeldPort held(Port(server.address()));
    {
      RawSocket probe;
      ASSERT_TRUE(probe.Connect(Port(server.address())));
    }
    // Before, while and after it tries.
    if (round % 2 == 0) {
      ASSERT_TRUE(server.WaitLog("the listener died", 1));
    }
    server.Finish();
  }
}

}  // namespace
}  // namespace gradferry::tp::testing
