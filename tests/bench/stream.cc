// See stream.h.
#include "tests/bench/stream.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <system_error>
#include <thread>

namespace gradferry::bench {
namespace {

[[noreturn]] void ThrowErrno(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

int Checked(int result, const char* what) {
  if (result < 0) ThrowErrno(what);
  return result;
}

class Socket : public Stream {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket() override { close(fd_); }

  void Write(const void* data, size_t size) override {
    const auto* at = static_cast<const char*>(data);
    while (size != 0) {
      const ssize_t written = send(fd_, at, size, MSG_NOSIGNAL);
      if (written < 0) ThrowErrno("send");
      at += written;
      size -= static_cast<size_t>(written);
    }
  }

  void Read(void* data, size_t size) override {
    auto* at = static_cast<char*>(data);
    while (size != 0) {
      const ssize_t got = recv(fd_, at, size, 0);
      if (got < 0) ThrowErrno("recv");
      if (got == 0) throw std::runtime_error("the other end is gone");
      at += got;
      size -= static_cast<size_t>(got);
    }
  }

  int fd() const { return fd_; }

 private:
  const int fd_;
};

std::unique_ptr<Socket> UnixSocket(Role role, const std::string& folder) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = folder + "/socket";
  if (path.size() >= sizeof(address.sun_path)) throw std::runtime_error(path + " is too long for a socket");
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = Checked(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  if (role == Role::kPeer) {
    Checked(bind(fd, generic, sizeof(address)), "bind");
    Checked(listen(fd, 1), "listen");
    Publish(folder, path);
    const int accepted = Checked(accept4(fd, nullptr, nullptr, SOCK_CLOEXEC), "accept");
    close(fd);
    return std::make_unique<Socket>(accepted);
  }
  AwaitPublished(folder);
  Checked(connect(fd, generic, sizeof(address)), "connect");
  return std::make_unique<Socket>(fd);
}

std::unique_ptr<Socket> TcpSocket(Role role, const std::string& folder) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  socklen_t length = sizeof(address);
  int fd = Checked(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
  if (role == Role::kPeer) {
    Checked(bind(fd, generic, length), "bind");
    Checked(listen(fd, 1), "listen");
    Checked(getsockname(fd, generic, &length), "getsockname");
    Publish(folder, std::to_string(ntohs(address.sin_port)));
    const int accepted = Checked(accept4(fd, nullptr, nullptr, SOCK_CLOEXEC), "accept");
    close(fd);
    fd = accepted;
  } else {
    address.sin_port = htons(static_cast<uint16_t>(std::stoi(AwaitPublished(folder))));
    Checked(connect(fd, generic, length), "connect");
  }
  const int on = 1;
  Checked(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), "TCP_NODELAY");
  return std::make_unique<Socket>(fd);
}

// ---- TLS ---------------------------------------------------------------------------------------------------------

[[noreturn]] void ThrowTls(const char* what) {
  char text[256];
  ERR_error_string_n(ERR_get_error(), text, sizeof(text));
  throw std::runtime_error(std::string(what) + ": " + text);
}

template <class T, void (*Free)(T*)>
struct Freed {
  void operator()(T* object) const { Free(object); }
};
template <class T, void (*Free)(T*)>
using Owned = std::unique_ptr<T, Freed<T, Free>>;

// A key and a certificate that it has signed itself.
void UseNewCertificate(SSL_CTX* context) {
  const Owned<EVP_PKEY, EVP_PKEY_free> key(EVP_EC_gen("P-256"));
  const Owned<X509, X509_free> certificate(X509_new());
  if (!key || !certificate) ThrowTls("a key");
  X509_set_version(certificate.get(), X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -60);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 24 * 3600);
  X509_set_pubkey(certificate.get(), key.get());
  X509_NAME* name = X509_get_subject_name(certificate.get());
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("bench"), -1, -1, 0);
  X509_set_issuer_name(certificate.get(), name);
  if (X509_sign(certificate.get(), key.get(), EVP_sha256()) == 0) ThrowTls("X509_sign");
  if (SSL_CTX_use_certificate(context, certificate.get()) != 1) ThrowTls("SSL_CTX_use_certificate");
  if (SSL_CTX_use_PrivateKey(context, key.get()) != 1) ThrowTls("SSL_CTX_use_PrivateKey");
}

class Tls final : public Stream {
 public:
  Tls(Role role, std::unique_ptr<Socket> socket) : socket_(std::move(socket)), context_(SSL_CTX_new(TLS_method())) {
    if (!context_) ThrowTls("SSL_CTX_new");
    SSL_CTX_set_min_proto_version(context_.get(), TLS1_3_VERSION);
    UseNewCertificate(context_.get());
    // Both show a certificate. Who signed it does not change what the bytes cost.
    SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                       [](int, X509_STORE_CTX*) { return 1; });
    ssl_.reset(SSL_new(context_.get()));
    SSL_set_fd(ssl_.get(), socket_->fd());
    const int result = role == Role::kPeer ? SSL_accept(ssl_.get()) : SSL_connect(ssl_.get());
    if (result != 1) ThrowTls("the TLS handshake");
  }

  void Write(const void* data, size_t size) override {
    for (const auto* at = static_cast<const char*>(data); size != 0;) {
      size_t written = 0;
      if (SSL_write_ex(ssl_.get(), at, std::min(size, kPiece), &written) != 1) ThrowTls("SSL_write");
      at += written;
      size -= written;
    }
  }

  void Read(void* data, size_t size) override {
    for (auto* at = static_cast<char*>(data); size != 0;) {
      size_t got = 0;
      if (SSL_read_ex(ssl_.get(), at, size, &got) != 1) ThrowTls("SSL_read");
      at += got;
      size -= got;
    }
  }

 private:
  static constexpr size_t kPiece = 1 << 20;

  const std::unique_ptr<Socket> socket_;
  const Owned<SSL_CTX, SSL_CTX_free> context_;
  Owned<SSL, SSL_free> ssl_;
};

}  // namespace

std::unique_ptr<Stream> OpenUnix(Role role, const std::string& folder) { return UnixSocket(role, folder); }
std::unique_ptr<Stream> OpenTcp(Role role, const std::string& folder) { return TcpSocket(role, folder); }
std::unique_ptr<Stream> OpenTls(Role role, const std::string& folder, bool tcp) {
  return std::make_unique<Tls>(role, tcp ? TcpSocket(role, folder) : UnixSocket(role, folder));
}

void Publish(const std::string& folder, const std::string& text) {
  std::ofstream(folder + "/published.new") << text;
  std::filesystem::rename(folder + "/published.new", folder + "/published");
}

std::string AwaitPublished(const std::string& folder) {
  for (int i = 0; i < 3000; ++i) {
    if (std::ifstream file(folder + "/published"); file) return {std::istreambuf_iterator<char>(file), {}};
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  throw std::runtime_error("the peer has not published its address");
}

}  // namespace gradferry::bench
