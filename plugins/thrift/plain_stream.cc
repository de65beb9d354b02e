#include "plugins/thrift/plain_stream.h"

#include <limits.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace gradferry::thrift {
namespace {

IoResult FromErrno() {
  IoResult result;
  if (errno == EAGAIN || errno == EWOULDBLOCK) {
    result.what = IoResult::What::kWouldBlock;
  } else {
    result.what = IoResult::What::kFailed;
    result.error = Describe(errno);
  }
  return result;
}

msghdr ToMessage(const iovec* pieces, size_t count) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces);
  message.msg_iovlen = std::min<size_t>(count, IOV_MAX);
  return message;
}

}  // namespace

IoResult PlainStream::Read(const iovec* pieces, size_t count) {
  ssize_t got;
  size_t wanted = 0;
  do {
    if (count == 1) {
      got = ::recv(fd_, pieces[0].iov_base, pieces[0].iov_len, MSG_DONTWAIT);
    } else {
      msghdr message = ToMessage(pieces, count);
      got = ::recvmsg(fd_, &message, MSG_DONTWAIT);
    }
  } while (got < 0 && errno == EINTR);
  if (got < 0) return FromErrno();
  IoResult result;
  if (got == 0) {
    result.what = IoResult::What::kEnd;
    return result;
  }
  for (size_t i = 0; i < count; ++i) wanted += pieces[i].iov_len;
  result.bytes = static_cast<size_t>(got);
  result.drained = result.bytes < wanted;
  return result;
}

IoResult PlainStream::Write(const iovec* pieces, size_t count) {
  msghdr message = ToMessage(pieces, count);
  ssize_t sent;
  do {
    sent = ::sendmsg(fd_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) return FromErrno();
  IoResult result;
  result.bytes = static_cast<size_t>(sent);
  size_t offered = 0;
  for (size_t i = 0; i < message.msg_iovlen; ++i) offered += pieces[i].iov_len;
  result.drained = result.bytes < offered;
  return result;
}

void PlainStream::Finish() { ::shutdown(fd_, SHUT_WR); }

}  // namespace gradferry::thrift
