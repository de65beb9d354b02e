// What offenders are made of: plain sockets, with TLS or without, and the bytes of the thrift transport.
#pragma once

#include <openssl/ssl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "impl/wire/messages.h"

namespace gf {

// ---- Bytes ---------------------------------------------------------------------------------------------------------

// Big endian, and little.
std::string Big(uint64_t value, int bytes);
std::string Little(uint64_t value, size_t bytes);
std::string Repeated(const std::string& text, size_t count);

// The bytes around a frame: Thrift's framed transport, binary protocol, one-way message `frame`.
std::string Framed(const std::string& header, const std::vector<std::string>& segments = {});
std::string Sealed(std::string header, uint64_t sequence);
// Both.
std::string FrameOf(const gradferry::Message& message, uint64_t sequence);

// ---- Sockets -------------------------------------------------------------------------------------------------------

// A certificate, its key and the authority, as tools/make_test_ca.sh makes them.
struct Certificate {
  std::string folder;
  std::string name;
};

// A connection to a worker at "tcp://127.0.0.1:4711", "tls://...", "uv://..." or "unix:///path", by plain bytes or,
// with a certificate (whose name may be empty for none), through TLS.
class Socket {
 public:
  explicit Socket(const std::string& address, const Certificate* tls = nullptr);
  Socket(Socket&& other) noexcept;
  ~Socket();

  // As much as goes out; the other side may have hung up.
  void Send(const std::string& bytes);
  // So many bytes, or "" when they do not come.
  std::string Receive(size_t bytes);
  // The header of the next frame of the thrift transport, without its seal.
  std::string NextHeader();

 private:
  struct FreeSsl {
    void operator()(SSL* ssl) const { SSL_free(ssl); }
  };

  int fd_;
  std::unique_ptr<SSL, FreeSsl> ssl_;
};

}  // namespace gf
