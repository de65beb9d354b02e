// TLS 1.3 over the socket, with certificates of both sides. Nothing that the peer says is believed before the handshake
// is over: its certificate must be one of the authority's, valid now, not revoked, and name a worker that is allowed.
//
// Large pieces are encrypted from where they lie, a record at a time; small ones that follow each other are put into
// one record first. What the socket does not take of a record waits here.
#pragma once

#include <openssl/ssl.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "plugins/thrift/stream.h"
#include "plugins/thrift/tls_context.h"

namespace gradferry::thrift {

class TlsStream final : public Stream {
 public:
  enum class Role { kClient, kServer };

  // context and fd outlive this.
  static Status Create(const TlsContext* context, Role role, int fd, std::unique_ptr<Stream>* out);

  IoResult Handshake(uint32_t* events) override;
  IoResult Read(const iovec* pieces, size_t count) override;
  IoResult Write(const iovec* pieces, size_t count) override;
  IoResult Push() override;
  void Finish() override;
  const std::vector<std::string>* identities() const override { return &identities_; }
  bool encrypted() const override { return true; }

 private:
  struct FreeSsl {
    void operator()(SSL* ssl) const { SSL_free(ssl); }
  };

  TlsStream(const TlsContext* context, int fd) : context_(context), fd_(fd) {}

  static BIO_METHOD* SocketMethod();
  static int WriteToSocket(BIO* bio, const char* data, int length);
  static int ReadFromSocket(BIO* bio, char* data, int length);
  static long Control(BIO* bio, int command, long, void*);
  static int Verify(int ok, X509_STORE_CTX* verifying);

  // Under the lock.
  bool PushWaiting();
  IoResult Failure(int returned);
  IoResult Blocked() const;

  const TlsContext* const context_;
  const int fd_;
  std::vector<std::string> identities_;  // set by the handshake

  std::mutex mutex_;  // guards what follows, for OpenSSL reads and writes one at a time; after the connection's
  std::unique_ptr<SSL, FreeSsl> ssl_;
  std::string refusal_;        // why the peer's certificate is not taken
  std::vector<char> waiting_;  // bytes of a record that the socket did not take yet
  size_t pushed_ = 0;          // of them
  int socket_error_ = 0;       // of writing
  std::unique_ptr<char[]> gathered_;
};

}  // namespace gradferry::thrift
