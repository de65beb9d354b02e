#include "plugins/tensorpipe/precheck.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>
#include <system_error>
#include <utility>

namespace gradferry::tp {
namespace {

// What one connection takes at most (with shm: 28), and some for the application.
constexpr size_t kFilesPerConnection = 48;

std::string Reason(int error) { return std::generic_category().message(error); }

Status CannotOpen(const char* what) { return {GF_RESOURCE_EXHAUSTED, std::string(what) + ": " + Reason(errno)}; }

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  int family() const { return storage.ss_family; }
};

// The scope of "fe80::1%eth0", as a name or a number.
uint32_t ScopeId(const std::string& host) {
  const size_t percent = host.find('%');
  if (percent == std::string::npos) return 0;
  const std::string scope = host.substr(percent + 1);
  const unsigned index = if_nametoindex(scope.c_str());
  return index != 0 ? index : static_cast<uint32_t>(std::strtoul(scope.c_str(), nullptr, 10));
}

SocketAddress ToSocketAddress(const Address& address) {
  SocketAddress out;
  if (address.host.find(':') == std::string::npos) {
    auto* in = reinterpret_cast<sockaddr_in*>(&out.storage);
    in->sin_family = AF_INET;
    in->sin_port = htons(static_cast<uint16_t>(address.port));
    inet_pton(AF_INET, address.host.c_str(), &in->sin_addr);
    out.length = sizeof(sockaddr_in);
  } else {
    auto* in = reinterpret_cast<sockaddr_in6*>(&out.storage);
    in->sin6_family = AF_INET6;
    in->sin6_port = htons(static_cast<uint16_t>(address.port));
    in->sin6_scope_id = ScopeId(address.host);
    inet_pton(AF_INET6, address.host.substr(0, address.host.find('%')).c_str(), &in->sin6_addr);
    out.length = sizeof(sockaddr_in6);
  }
  return out;
}

SocketAddress AbstractName(const std::string& name) {
  SocketAddress out;
  auto* un = reinterpret_cast<sockaddr_un*>(&out.storage);
  un->sun_family = AF_UNIX;
  const size_t length = std::min(name.size(), sizeof(un->sun_path) - 1);
  std::memcpy(un->sun_path + 1, name.data(), length);
  out.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length);
  return out;
}

Status InUse(const Address& address) { return {GF_ALREADY_EXISTS, "address in use: " + address.text}; }

}  // namespace

ListenClaim::~ListenClaim() {
  if (port_fd_ >= 0) close(port_fd_);
  if (name_fd_ >= 0) close(name_fd_);
}

Status ListenClaim::Take(const Address& address) {
  if (address.is_shm()) {
    if (address.name.empty()) return {};  // the kernel picks a free one
    const Status status = TakeName(address.name, address);
    // It is the name itself that was tried, and TensorPipe needs it free.
    if (status.ok()) close(std::exchange(name_fd_, -1));
    return status;
  }
  // Abstract names and ports live in the same network namespace, so a name can stand for a port.
  if (address.port != 0) {
    if (Status status = TakeName("gradferry/" + address.Url(), address); !status.ok()) return status;
  }
  return TakePort(address);
}

Status ListenClaim::TakeName(const std::string& name, const Address& address) {
  name_fd_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (name_fd_ < 0) return CannotOpen("opening a socket");
  const SocketAddress where = AbstractName(name);
  return bind(name_fd_, where.get(), where.length) == 0 ? Status{} : InUse(address);
}

// Port 0 too, for no interface may have the IP.
Status ListenClaim::TakePort(const Address& address) {
  const SocketAddress where = ToSocketAddress(address);
  port_fd_ = socket(where.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (port_fd_ < 0) return CannotOpen("opening a socket");
  // As libuv does: this fails for a port that somebody listens on, and lets TensorPipe bind beside it otherwise.
  const int on = 1;
  setsockopt(port_fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (bind(port_fd_, where.get(), where.length) == 0) return {};
  if (errno == EADDRINUSE) return InUse(address);
  const int32_t code = errno == EACCES ? GF_PERMISSION_DENIED : GF_INVALID_ARGUMENT;
  return {code, "cannot listen at " + address.text + ": " + Reason(errno)};
}

Status CheckRoute(const Address& address) {
  if (address.is_shm()) return {};
  const SocketAddress where = ToSocketAddress(address);
  // Connecting a datagram socket looks up the route and sends nothing.
  const int fd = socket(where.family(), SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return CannotOpen("opening a socket");
  const bool routed = connect(fd, where.get(), where.length) == 0;
  const int error = errno;
  close(fd);
  if (routed) return {};
  return {GF_UNAVAILABLE, "cannot connect to " + address.text + ": " + Reason(error)};
}

Status CheckFileDescriptors() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return {};
  DIR* folder = opendir("/proc/self/fd");
  if (folder == nullptr && errno != EMFILE && errno != ENFILE) return {};  // no /proc here: nothing to count
  size_t open = 0;
  if (folder != nullptr) {
    while (readdir(folder) != nullptr) ++open;
    closedir(folder);
    if (open + kFilesPerConnection <= limit.rlim_cur) return {};
  }
  return {GF_RESOURCE_EXHAUSTED, "too few file descriptors are left for another connection (ulimit -n is " +
                                     std::to_string(limit.rlim_cur) + ")"};
}

}  // namespace gradferry::tp
