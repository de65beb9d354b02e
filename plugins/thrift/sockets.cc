#include "plugins/thrift/sockets.h"

#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

namespace gradferry::thrift {
namespace {

constexpr int kFlags = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;

void SetOption(int fd, int level, int name, int value) { ::setsockopt(fd, level, name, &value, sizeof(value)); }

Status NoSocket() {
  const int32_t code = errno == EMFILE || errno == ENFILE || errno == ENOBUFS ? GF_RESOURCE_EXHAUSTED : GF_UNAVAILABLE;
  return {code, "cannot open a socket: " + Describe(errno)};
}

}  // namespace

Status ListenTcp(Address* address, FileDescriptor* out) {
  SocketAddress where = ToSocketAddress(*address);
  FileDescriptor fd(::socket(where.family(), kFlags, 0));
  if (!fd.valid()) return NoSocket();
  // A worker that is started again shall get its port back.
  SetOption(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (where.family() == AF_INET6) SetOption(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
  if (::bind(fd.get(), where.get(), where.length) != 0 || ::listen(fd.get(), SOMAXCONN) != 0) {
    const int32_t code = errno == EADDRINUSE                         ? GF_ALREADY_EXISTS
                         : errno == EACCES                           ? GF_PERMISSION_DENIED
                         : errno == EADDRNOTAVAIL || errno == EINVAL ? GF_INVALID_ARGUMENT
                                                                     : GF_UNAVAILABLE;
    return {code, "cannot listen at " + address->text + ": " + Describe(errno)};
  }
  where.length = sizeof(where.storage);
  if (::getsockname(fd.get(), where.get(), &where.length) != 0) {
    return {GF_INTERNAL, "cannot find out where " + address->text + " listens: " + Describe(errno)};
  }
  address->port = ntohs(where.family() == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&where.storage)->sin6_port
                                                   : reinterpret_cast<sockaddr_in*>(&where.storage)->sin_port);
  *out = std::move(fd);
  return {};
}

Status BeginConnect(const Address& address, FileDescriptor* out, bool* pending, bool* retry) {
  const SocketAddress where = ToSocketAddress(address);
  *pending = *retry = false;
  FileDescriptor fd(::socket(where.family(), kFlags, 0));
  if (!fd.valid()) return NoSocket();
  if (::connect(fd.get(), where.get(), where.length) != 0) {
    *pending = errno == EINPROGRESS;
    *retry = errno == EAGAIN && address.is_unix();
    if (!*pending) return {GF_UNAVAILABLE, Describe(errno)};
  }
  *out = std::move(fd);
  return {};
}

Status FinishConnect(int fd) {
  int error = 0;
  socklen_t length = sizeof(error);
  if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
  if (error == 0) return {};
  return {GF_UNAVAILABLE, Describe(error)};
}

void TuneTcp(int fd, const Options& options) {
  SetOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  const int idle = static_cast<int>(options.keepalive_s);
  if (idle == 0) return;
  SetOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, idle);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
  // The same patience with what was sent and is not acknowledged.
  SetOption(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (idle + 15) * 1000);
}

// Enough for a stream at full speed, and all of it is ahead of whatever is sent next.
void TuneLocal(int fd) { SetOption(fd, SOL_SOCKET, SO_SNDBUF, 256 * 1024); }

Status CheckPeerUser(int fd) {
  ucred peer{};
  socklen_t length = sizeof(peer);
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) {
    return {GF_PERMISSION_DENIED, "cannot find out whose process is at the other end: " + Describe(errno)};
  }
  if (peer.uid == ::geteuid()) return {};
  return {GF_PERMISSION_DENIED, "the process at the other end runs as user " + std::to_string(peer.uid) +
                                    ", this one as user " + std::to_string(::geteuid())};
}

std::string PeerText(int fd) {
  SocketAddress peer;
  peer.length = sizeof(peer.storage);
  if (::getpeername(fd, peer.get(), &peer.length) != 0) return "an unknown address";
  if (peer.family() != AF_UNIX) return Describe(peer);
  ucred user{};
  socklen_t length = sizeof(user);
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &user, &length) != 0) return "a local process";
  return "process " + std::to_string(user.pid);
}

}  // namespace gradferry::thrift
