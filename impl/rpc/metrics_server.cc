// See metrics_server.h.
#include "impl/rpc/metrics_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "impl/base/log.h"

namespace gradferry {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMostConnections = 16;
constexpr size_t kMostRequestBytes = 8192;
constexpr std::chrono::seconds kConnectionLimit{5};
// How long nothing is accepted after an accept failed (out of descriptors).
constexpr std::chrono::milliseconds kAcceptPause{100};

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }

  bool IsLoopback() const {
    if (storage.ss_family == AF_INET6) {
      return IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6&>(storage).sin6_addr) != 0;
    }
    return ntohl(reinterpret_cast<const sockaddr_in&>(storage).sin_addr.s_addr) >> 24 == 127;
  }
  std::string ToString() const {
    char host[INET6_ADDRSTRLEN] = "";
    if (storage.ss_family == AF_INET6) {
      const auto& v6 = reinterpret_cast<const sockaddr_in6&>(storage);
      inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof(host));
      return StrCat("[", host, "]:", ntohs(v6.sin6_port));
    }
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(storage);
    inet_ntop(AF_INET, &v4.sin_addr, host, sizeof(host));
    return StrCat(host, ":", ntohs(v4.sin_port));
  }
};

Result<SocketAddress> ParseAddress(const std::string& text) {
  const Status bad = InvalidArgument(
      StrCat("metrics.listen wants an address as in 127.0.0.1:9464 or [::1]:9464, without a name; got \"", text, "\""));
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return bad;
  uint16_t port = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data() + colon + 1, end, port);
  if (parsed.ec != std::errc() || parsed.ptr != end) return bad;
  std::string host = text.substr(0, colon);
  SocketAddress address;
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    auto& v6 = reinterpret_cast<sockaddr_in6&>(address.storage);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    address.length = sizeof(v6);
    if (inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &v6.sin6_addr) != 1) return bad;
    return address;
  }
  auto& v4 = reinterpret_cast<sockaddr_in&>(address.storage);
  v4.sin_family = AF_INET;
  v4.sin_port = htons(port);
  address.length = sizeof(v4);
  if (inet_pton(AF_INET, host.c_str(), &v4.sin_addr) != 1) return bad;
  return address;
}

std::string Response(std::string_view status, std::string_view type, std::string_view body) {
  return StrCat("HTTP/1.1 ", status, "\r\nContent-Type: ", type, "\r\nContent-Length: ", body.size(),
                "\r\nConnection: close\r\n\r\n", body);
}

// What a whole request, up to its empty line, gets.
std::string Answer(std::string_view request, const std::function<std::string()>& text) {
  constexpr std::string_view kPlain = "text/plain; charset=utf-8";
  const std::string_view line = request.substr(0, request.find("\r\n"));
  const size_t space = line.find(' ');
  const size_t second = space == std::string_view::npos ? space : line.find(' ', space + 1);
  if (second == std::string_view::npos || line.substr(second + 1, 7) != "HTTP/1.") {
    return Response("400 Bad Request", kPlain, "This is no HTTP request.\n");
  }
  const std::string_view target = line.substr(space + 1, second - space - 1);
  if (target.substr(0, target.find('?')) != "/metrics") {
    return Response("404 Not Found", kPlain, "There is /metrics and nothing else.\n");
  }
  if (line.substr(0, space) != "GET") return Response("405 Method Not Allowed", kPlain, "GET it.\n");
  return Response("200 OK", "text/plain; version=0.0.4; charset=utf-8", text());
}

// One client: reads its request, then writes the answer.
class Connection {
 public:
  explicit Connection(Descriptor fd) : fd_(std::move(fd)), until_(Clock::now() + kConnectionLimit) {}

  int fd() const { return fd_.get(); }
  short events() const { return writing_ ? POLLOUT : POLLIN; }
  Clock::time_point until() const { return until_; }

  // When it is ready. False when it is over.
  bool Go(const std::function<std::string()>& text) { return writing_ ? Write() : Read(text); }

 private:
  bool Read(const std::function<std::string()>& text) {
    char bytes[2048];
    const ssize_t count = recv(fd(), bytes, sizeof(bytes), MSG_DONTWAIT);
    if (count < 0) return errno == EAGAIN || errno == EINTR;
    if (count == 0) return false;
    data_.append(bytes, static_cast<size_t>(count));
    const bool whole = data_.find("\r\n\r\n") != std::string::npos;
    if (!whole && data_.size() <= kMostRequestBytes) return true;
    data_ = whole ? Answer(data_, text) : Response("431 Request Header Fields Too Large", "text/plain", "Too long.\n");
    writing_ = true;
    return Write();
  }

  bool Write() {
    const ssize_t count = send(fd(), data_.data(), data_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0) return errno == EAGAIN || errno == EINTR;
    data_.erase(0, static_cast<size_t>(count));
    if (!data_.empty()) return true;
    shutdown(fd(), SHUT_WR);
    return false;
  }

  Descriptor fd_;
  Clock::time_point until_;
  std::string data_;  // the request, then what is left of the answer
  bool writing_ = false;
};

}  // namespace

Result<std::unique_ptr<MetricsServer>> MetricsServer::Open(const std::string& text, bool beyond_loopback,
                                                           std::function<std::string()> metrics) {
  GF_ASSIGN_OR_RETURN(SocketAddress address, ParseAddress(text));
  if (!beyond_loopback && !address.IsLoopback()) {
    return Status(Code::kPermissionDenied, StrCat("metrics.listen is ", text,
                                                  ", which others can reach: 127.0.0.1 or [::1], or metrics.insecure = "
                                                  "true when that is wanted"));
  }
  const auto failure = [&] {
    return Status(Code::kUnavailable, StrCat("metrics.listen: cannot listen at ", text, ": ", strerror(errno)));
  };
  Descriptor listener(socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  if (listener.get() < 0 || setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
      bind(listener.get(), address.get(), address.length) != 0 || listen(listener.get(), kMostConnections) != 0 ||
      getsockname(listener.get(), address.get(), &address.length) != 0) {
    return failure();
  }
  Descriptor wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (wake.get() < 0) return failure();
  return std::unique_ptr<MetricsServer>(
      new MetricsServer(listener.release(), wake.release(), address.ToString(), std::move(metrics)));
}

MetricsServer::MetricsServer(int listener, int wake, std::string address, std::function<std::string()> text)
    : listener_(listener), wake_(wake), address_(std::move(address)), text_(std::move(text)), thread_([this] {
        Run();
      }) {}

MetricsServer::~MetricsServer() {
  eventfd_write(wake_, 1);
  thread_.join();
  close(listener_);
  close(wake_);
}

void MetricsServer::Run() {
  std::vector<Connection> connections;
  Clock::time_point accept_after{};
  for (;;) {
    const auto now = Clock::now();
    connections.erase(
        std::remove_if(connections.begin(), connections.end(), [now](const Connection& c) { return c.until() <= now; }),
        connections.end());
    const bool accepting = connections.size() < kMostConnections && accept_after <= now;
    std::vector<pollfd> polled = {{wake_, POLLIN, 0}, {accepting ? listener_ : -1, POLLIN, 0}};
    Clock::time_point next = accept_after > now ? accept_after : Clock::time_point::max();
    for (const Connection& c : connections) {
      polled.push_back({c.fd(), c.events(), 0});
      next = std::min(next, c.until());
    }
    int wait = -1;
    if (next != Clock::time_point::max()) {
      wait = static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(next - now).count()) + 1;
    }
    if (poll(polled.data(), polled.size(), wait) < 0 && errno != EINTR) {
      return Log(LogLevel::kError, "the metrics are served no more: poll: ", strerror(errno));
    }
    if (polled[0].revents != 0) return;
    for (size_t i = connections.size(); i-- > 0;) {
      if (polled[i + 2].revents != 0 && !connections[i].Go(text_)) connections.erase(connections.begin() + i);
    }
    if (polled[1].revents != 0) {
      Descriptor accepted(accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (accepted.get() >= 0) {
        connections.emplace_back(std::move(accepted));
      } else {
        accept_after = Clock::now() + kAcceptPause;
      }
    }
  }
}

}  // namespace gradferry
