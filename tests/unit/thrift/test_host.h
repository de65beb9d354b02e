// The host that drives the plugin in these tests, and a socket that speaks whatever it is told to.
#pragma once

#include <poll.h>

#include <chrono>
#include <cstdlib>
#include <string>

#include "plugins/thrift/address.h"
#include "tests/support/plugin/host.h"

namespace gradferry::thrift::testing {

using namespace plugin_testing;  // NOLINT

constexpr char kTcp[] = R"({"address": "tcp://127.0.0.1:0"})";

// A client of no particular kind, at an address of the plugin's.
class Stranger {
 public:
  enum class When { kNow, kLater };

  explicit Stranger(const std::string& address, When connect = When::kNow) {
    Address parsed;
    const Status status = ParseAddress(address, AddressUse::kConnect, &parsed);
    EXPECT_TRUE(status.ok()) << status.text;
    where_ = ToSocketAddress(parsed);
    fd_ = ::socket(where_.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect == When::kNow) Connect();
  }
  ~Stranger() { Close(); }
  Stranger(const Stranger&) = delete;
  Stranger& operator=(const Stranger&) = delete;

  int fd() const { return fd_; }
  void Connect() { EXPECT_EQ(::connect(fd_, where_.get(), where_.length), 0); }
  void Close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

  // False when the other side has gone.
  bool Send(const std::string& bytes) {
    for (size_t sent = 0; sent < bytes.size();) {
      const ssize_t n = ::send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) return false;
      sent += static_cast<size_t>(n);
    }
    return true;
  }

  // Whether the other side closes, be it after some bytes.
  bool WaitUntilClosed(std::chrono::milliseconds patience = kPatience) {
    const auto end = std::chrono::steady_clock::now() + patience;
    char bytes[4096];
    for (;;) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
      pollfd wanted{fd_, POLLIN, 0};
      if (left.count() <= 0 || ::poll(&wanted, 1, static_cast<int>(left.count())) <= 0) return false;
      if (::recv(fd_, bytes, sizeof(bytes), 0) <= 0) return true;
    }
  }

  // So many bytes, or as many as came before the end.
  std::string Read(size_t count) {
    std::string bytes(count, '\0');
    size_t got = 0;
    while (got < count) {
      const ssize_t n = ::recv(fd_, bytes.data() + got, count - got, 0);
      if (n <= 0) break;
      got += static_cast<size_t>(n);
    }
    bytes.resize(got);
    return bytes;
  }

 private:
  SocketAddress where_;
  int fd_ = -1;
};

// A client that has said hello to a server. The parameter is the server's options.
class ConnectedTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    ASSERT_EQ(server_.Listen().code, GF_OK);
    client_ = host_.Connect(server_.address());
    ASSERT_EQ(host_.Send(client_, {"hello", {}}).code, GF_OK);
    accepted_ = server_.Accepted();
    ASSERT_TRUE(server_.WaitFrames(accepted_, 1));
  }

  Host server_{GetParam()};
  Host host_;
  Peer* client_ = nullptr;
  Peer* accepted_ = nullptr;
};

// A folder that goes with the test. It is short, as a Unix socket's path must be: at most 107
// bytes, which the folder that a test runner gives can use up alone.
class Folder {
 public:
  Folder() {
    std::string name = "/tmp/gradferry-XXXXXX";
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  ~Folder() { EXPECT_EQ(std::system(("rm -rf '" + path_ + "'").c_str()), 0); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace gradferry::thrift::testing
