// Bytes to and from one peer, over a socket that never blocks. PlainStream is the socket itself, TlsStream encrypts.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <string>
#include <vector>

#include "plugins/thrift/status.h"

namespace gradferry::thrift {

struct IoResult {
  enum class What { kBytes, kWouldBlock, kEnd, kFailed };
  What what = What::kBytes;
  size_t bytes = 0;
  bool drained = false;  // nothing more is there for now, or no more room
  std::string error;     // of kFailed
};

class Stream {
 public:
  virtual ~Stream() = default;

  // What comes before the first byte of ours. kBytes: it is over; kWouldBlock: call again when the socket is ready for
  // what *events says (of epoll); kFailed.
  virtual IoResult Handshake(uint32_t* events) = 0;
  // One call at a time of each of these two; a Read and a Write may come at once.
  virtual IoResult Read(const iovec* pieces, size_t count) = 0;
  virtual IoResult Write(const iovec* pieces, size_t count) = 0;
  // Passes on what Write has taken and the socket has not. kBytes: nothing is left.
  virtual IoResult Push() { return {}; }
  // Says goodbye, as far as the protocol has one.
  virtual void Finish() = 0;

  // Names that the peer has proved to be its own; null where nothing is proved.
  virtual const std::vector<std::string>* identities() const { return nullptr; }
  virtual bool encrypted() const { return false; }
};

}  // namespace gradferry::thrift
