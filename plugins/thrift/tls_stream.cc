#include "plugins/thrift/tls_stream.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace gradferry::thrift {
namespace {

using What = IoResult::What;

constexpr size_t kRecord = 16 * 1024;  // what TLS puts into one
// Of so many bytes a piece is worth a record of its own.
constexpr size_t kLargePiece = 4 * 1024;

int StreamIndex() {
  static const int index = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  return index;
}

}  // namespace

// ---- The socket, as OpenSSL sees it ------------------------------------------------------------------------------

BIO_METHOD* TlsStream::SocketMethod() {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "gradferry socket");
    BIO_meth_set_write(made, WriteToSocket);
    BIO_meth_set_read(made, ReadFromSocket);
    BIO_meth_set_ctrl(made, Control);
    return made;
  }();
  return method;
}

// Takes everything: OpenSSL need not be asked again for a record that the socket took in part. A write to a socket
// that has gone must not raise SIGPIPE, which is why OpenSSL's own BIO is not used.
int TlsStream::WriteToSocket(BIO* bio, const char* data, int length) {
  auto* self = static_cast<TlsStream*>(BIO_get_data(bio));
  size_t sent = 0;
  const auto whole = static_cast<size_t>(length);
  if (self->waiting_.empty() && self->socket_error_ == 0) {
    const ssize_t n = ::send(self->fd_, data, whole, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) {
      sent = static_cast<size_t>(n);
    } else if (errno != EAGAIN && errno != EINTR) {
      self->socket_error_ = errno;
    }
  }
  if (sent < whole) self->waiting_.insert(self->waiting_.end(), data + sent, data + whole);
  return length;
}

int TlsStream::ReadFromSocket(BIO* bio, char* data, int length) {
  auto* self = static_cast<TlsStream*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  ssize_t n;
  do {
    n = ::recv(self->fd_, data, static_cast<size_t>(length), MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  if (n < 0 && errno == EAGAIN) BIO_set_retry_read(bio);
  return static_cast<int>(n);
}

long TlsStream::Control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

bool TlsStream::PushWaiting() {
  while (pushed_ < waiting_.size() && socket_error_ == 0) {
    const ssize_t n = ::send(fd_, waiting_.data() + pushed_, waiting_.size() - pushed_, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return false;
    if (n < 0) socket_error_ = errno;
    if (n > 0) pushed_ += static_cast<size_t>(n);
  }
  waiting_.clear();
  pushed_ = 0;
  return true;
}

// ---- The handshake -----------------------------------------------------------------------------------------------

Status TlsStream::Create(const TlsContext* context, Role role, int fd, std::unique_ptr<Stream>* out) {
  std::unique_ptr<TlsStream> stream(new TlsStream(context, fd));
  SSL* ssl = SSL_new(context->get());
  stream->ssl_.reset(ssl);
  BIO* bio = BIO_new(SocketMethod());
  if (ssl == nullptr || bio == nullptr) {
    BIO_free(bio);
    return {GF_RESOURCE_EXHAUSTED, "no memory for a TLS connection"};
  }
  BIO_set_data(bio, stream.get());
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl, bio, bio);
  SSL_set_ex_data(ssl, StreamIndex(), stream.get());
  // Both sides, always: a server that does not ask for a certificate serves anybody.
  SSL_set_verify(ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, Verify);
  if (role == Role::kClient) {
    SSL_set_connect_state(ssl);
  } else {
    SSL_set_accept_state(ssl);
  }
  *out = std::move(stream);
  return {};
}

// For each certificate of the chain, the peer's own last.
int TlsStream::Verify(int ok, X509_STORE_CTX* verifying) {
  auto* ssl = static_cast<SSL*>(X509_STORE_CTX_get_ex_data(verifying, SSL_get_ex_data_X509_STORE_CTX_idx()));
  auto* self = static_cast<TlsStream*>(SSL_get_ex_data(ssl, StreamIndex()));
  if (ok != 1) {
    self->refusal_ = std::string("its certificate was refused: ") +
                     X509_verify_cert_error_string(X509_STORE_CTX_get_error(verifying));
    return 0;
  }
  if (X509_STORE_CTX_get_error_depth(verifying) != 0) return 1;
  self->identities_ = self->context_->Names(X509_STORE_CTX_get_current_cert(verifying), &self->refusal_);
  if (!self->identities_.empty()) return 1;
  X509_STORE_CTX_set_error(verifying, X509_V_ERR_APPLICATION_VERIFICATION);
  return 0;
}

IoResult TlsStream::Handshake(uint32_t* events) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ERR_clear_error();
  PushWaiting();
  const int returned = SSL_do_handshake(ssl_.get());
  if (returned == 1) return {};
  IoResult result = Failure(returned);
  if (result.what == What::kEnd) {
    result.what = What::kFailed;
    result.error = "the peer went away during the TLS handshake";
  }
  *events = waiting_.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT;
  return result;
}

// ---- Bytes -------------------------------------------------------------------------------------------------------

IoResult TlsStream::Failure(int returned) {
  IoResult result;
  const int saved = errno;
  switch (SSL_get_error(ssl_.get(), returned)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
      result.what = What::kWouldBlock;
      return result;
    case SSL_ERROR_ZERO_RETURN:
      result.what = What::kEnd;
      return result;
    case SSL_ERROR_SYSCALL:
      result.what = What::kFailed;
      result.error = saved == 0 ? "the peer went away" : Describe(saved);
      ERR_clear_error();
      return result;
    default:
      break;
  }
  result.what = What::kFailed;
  const unsigned long error = ERR_peek_error();
  if (!refusal_.empty()) {
    result.error = refusal_;
    ERR_clear_error();
  } else if (ERR_GET_REASON(error) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
    result.what = What::kEnd;
    ERR_clear_error();
  } else if (ERR_GET_REASON(error) >= SSL_AD_REASON_OFFSET) {
    result.error = "the peer ended TLS: " + TakeTlsError();
  } else {
    result.error = "TLS failed: " + TakeTlsError();
  }
  return result;
}

IoResult TlsStream::Blocked() const {
  IoResult result;
  result.what = socket_error_ == 0 ? What::kWouldBlock : What::kFailed;
  if (socket_error_ != 0) result.error = Describe(socket_error_);
  return result;
}

IoResult TlsStream::Read(const iovec* pieces, size_t count) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ERR_clear_error();
  IoResult result;
  for (size_t i = 0; i < count; ++i) {
    for (size_t done = 0; done < pieces[i].iov_len;) {
      size_t got = 0;
      errno = 0;
      const int returned =
          SSL_read_ex(ssl_.get(), static_cast<char*>(pieces[i].iov_base) + done, pieces[i].iov_len - done, &got);
      if (returned == 1) {
        done += got;
        result.bytes += got;
        continue;
      }
      if (result.bytes == 0) return Failure(returned);
      // What else there is to say it says again; of the end OpenSSL keeps a note.
      ERR_clear_error();
      result.drained = SSL_get_error(ssl_.get(), returned) == SSL_ERROR_WANT_READ;
      return result;
    }
  }
  return result;
}

IoResult TlsStream::Write(const iovec* pieces, size_t count) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ERR_clear_error();
  if (!PushWaiting() || socket_error_ != 0) return Blocked();
  IoResult result;
  size_t offset = 0;  // in the first piece
  while (count > 0 && waiting_.empty()) {
    const char* from = static_cast<const char*>(pieces->iov_base) + offset;
    size_t length = pieces->iov_len - offset;
    if (length < kLargePiece && count > 1) {
      if (gathered_ == nullptr) gathered_.reset(new char[kRecord]);
      length = 0;
      size_t skip = offset;
      for (size_t i = 0; i < count && length < kRecord; ++i, skip = 0) {
        const size_t some = std::min(pieces[i].iov_len - skip, kRecord - length);
        if (i > 0 && some >= kLargePiece && length + some == kRecord) break;
        std::memcpy(gathered_.get() + length, static_cast<const char*>(pieces[i].iov_base) + skip, some);
        length += some;
      }
      from = gathered_.get();
    }
    size_t written = 0;
    const int returned = SSL_write_ex(ssl_.get(), from, std::min(length, kRecord), &written);
    if (returned != 1) return result.bytes != 0 ? result : Failure(returned);
    if (socket_error_ != 0) return Blocked();
    result.bytes += written;
    for (written += offset, offset = 0; written > 0;) {
      if (written < pieces->iov_len) {
        offset = written;
        break;
      }
      written -= pieces->iov_len;
      ++pieces;
      --count;
    }
  }
  result.drained = !waiting_.empty();
  return result;
}

IoResult TlsStream::Push() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!PushWaiting() || socket_error_ != 0) return Blocked();
  return {};
}

void TlsStream::Finish() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ERR_clear_error();
    if (SSL_is_init_finished(ssl_.get())) SSL_shutdown(ssl_.get());
    PushWaiting();
    ERR_clear_error();
  }
  ::shutdown(fd_, SHUT_WR);
}

}  // namespace gradferry::thrift
