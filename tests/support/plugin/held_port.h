// Keeps the tensorpipe plugin from a port.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstring>
#include <string>
#include <thread>

namespace gradferry::plugin_testing {

// Whoever listens at a port by way of this plugin holds this name meanwhile, so holding it keeps the plugin from the
// port. (A socket that listens there would do so too, but could come between the plugin's look and TensorPipe's.)
class HeldPort {
 public:
  // "uv://127.0.0.1:4711#basic". Another test on this machine may hold the same name for a moment.
  explicit HeldPort(const std::string& address) : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const std::string name = "gradferry/" + address.substr(0, address.find('#'));
    sockaddr_un where{};
    where.sun_family = AF_UNIX;
    std::memcpy(where.sun_path + 1, name.data(), name.size());
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
    bool held = false;
    for (int attempt = 0; attempt < 2000 && !held; ++attempt) {
      held = bind(fd_, reinterpret_cast<const sockaddr*>(&where), length) == 0;
      if (!held) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    EXPECT_TRUE(held) << name;
  }
  HeldPort(const HeldPort&) = delete;
  ~HeldPort() { close(fd_); }

 private:
  const int fd_;
};

}  // namespace gradferry::plugin_testing
