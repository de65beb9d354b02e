// See offenders.h.
#include "tests/hostile/offenders.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "impl/wire/frame.h"
#include "impl/wire/seal.h"

namespace gf {
namespace {

// Whose answer does not come at all.
constexpr int kPatienceMs = 20000;
// Who takes no more.
constexpr int kSendMs = 200;

int Connected(const std::string& address) {
  const size_t path = address.find("://") + 3;
  const bool local = address.compare(0, path, "unix://") == 0;
  const int fd = socket(local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  if (!local) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  const timeval patience{0, kSendMs * 1000};
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  // Whether it worked is seen by what comes.
  if (local) {
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    std::strncpy(to.sun_path, address.c_str() + path, sizeof(to.sun_path) - 1);
    (void)connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to));
  } else {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.find(':', path) + 1))));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    (void)connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to));
  }
  return fd;
}

// With the handshake done; null when it failed.
SSL* Secured(int fd, const Certificate& certificate) {
  static const auto ignored = std::signal(SIGPIPE, SIG_IGN);  // SSL_write raises it
  (void)ignored;
  SSL_CTX* const context = SSL_CTX_new(TLS_client_method());
  if (!certificate.name.empty()) {
    const std::string file = certificate.folder + "/" + certificate.name;
    SSL_CTX_use_certificate_file(context, (file + ".pem").c_str(), SSL_FILETYPE_PEM);
    SSL_CTX_use_PrivateKey_file(context, (file + ".key").c_str(), SSL_FILETYPE_PEM);
  }
  SSL* const ssl = SSL_new(context);
  SSL_CTX_free(context);
  SSL_set_fd(ssl, fd);
  if (SSL_connect(ssl) == 1) return ssl;
  SSL_free(ssl);
  return nullptr;
}

}  // namespace

// ---- Bytes ---------------------------------------------------------------------------------------------------------

std::string Big(uint64_t value, int bytes) {
  std::string text;
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) text += static_cast<char>(value >> shift);
  return text;
}

std::string Little(uint64_t value, size_t bytes) { return {reinterpret_cast<const char*>(&value), bytes}; }

std::string Repeated(const std::string& text, size_t count) {
  std::string all;
  for (size_t i = 0; i < count; ++i) all += text;
  return all;
}

std::string Framed(const std::string& header, const std::vector<std::string>& segments) {
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

std::string FrameOf(const gradferry::Message& message, uint64_t sequence) {
  return Framed(Sealed(gradferry::EncodeFrame(message, {}, {})->header, sequence));
}

// ---- Sockets -------------------------------------------------------------------------------------------------------

Socket::Socket(const std::string& address, const Certificate* tls) : fd_(Connected(address)) {
  if (tls != nullptr) ssl_.reset(Secured(fd_, *tls));
}

Socket::Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)), ssl_(std::move(other.ssl_)) {}

Socket::~Socket() {
  if (fd_ >= 0) close(fd_);
}

void Socket::Send(const std::string& bytes) {
  for (size_t sent = 0; sent < bytes.size();) {
    const size_t left = bytes.size() - sent;
    const ssize_t done = ssl_ ? SSL_write(ssl_.get(), bytes.data() + sent, static_cast<int>(left))
                              : send(fd_, bytes.data() + sent, left, MSG_NOSIGNAL);
    if (done <= 0) return;
    sent += static_cast<size_t>(done);
  }
}

std::string Socket::Receive(size_t bytes) {
  std::string text(bytes, '\0');
  for (size_t got = 0; got < bytes;) {
    pollfd wait{fd_, POLLIN, 0};
    if ((!ssl_ || SSL_pending(ssl_.get()) == 0) && poll(&wait, 1, kPatienceMs) <= 0) return "";
    const size_t left = bytes - got;
    const ssize_t done =
        ssl_ ? SSL_read(ssl_.get(), text.data() + got, static_cast<int>(left)) : recv(fd_, text.data() + got, left, 0);
    if (done <= 0) return "";
    got += static_cast<size_t>(done);
  }
  return text;
}

std::string Socket::NextHeader() {
  const auto at = [](const std::string& text, size_t offset) {
    uint32_t value;
    std::memcpy(&value, text.data() + offset, 4);
    return ntohl(value);
  };
  const std::string length = Receive(4);
  if (length.empty()) return "";
  const std::string body = Receive(at(length, 0));
  if (body.size() < 24) return "";
  return body.substr(24, at(body, 20) - gradferry::kSealBytes);
}

}  // namespace gf
