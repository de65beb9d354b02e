// What TLS connections share: this worker's certificate, the authority it trusts, and who may be a peer. Made once for
// a transport, used by all of its streams.
//
// libthrift's TSSLSocket is not used. It does its handshake in the first read or write and waits in it, takes TLS 1.0
// unless told otherwise, can be given no lowest version of 1.3 without being subclassed, lets a server accept any
// certificate of the authority, looks at the common name when there is no other, and compares names with wildcards of
// its own. OpenSSL alone, on the socket that never blocks, is less code than what would have to be switched off.
#pragma once

#include <openssl/ssl.h>

#include <memory>
#include <string>
#include <vector>

#include "plugins/thrift/shared.h"
#include "plugins/thrift/status.h"

namespace gradferry::thrift {

struct FreeSslContext {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};

class TlsContext {
 public:
  // With ca, certificate and key of the options. GF_INVALID_ARGUMENT when one is missing or cannot be used; a key that
  // others may read is a warning.
  static Status Create(const Shared& shared, std::unique_ptr<TlsContext>* out);

  SSL_CTX* get() const { return context_.get(); }

  // Which workers the owner of a certificate may be: its DNS names, of those that are allowed. None: *why says so.
  std::vector<std::string> Names(X509* certificate, std::string* why) const;

 private:
  TlsContext() = default;
  Status Load(const Options& options);

  std::unique_ptr<SSL_CTX, FreeSslContext> context_;
  std::vector<std::string> allow_;
};

// What OpenSSL has to say about the last error of this thread; forgets it.
std::string TakeTlsError();

}  // namespace gradferry::thrift
