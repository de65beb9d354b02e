// The socket itself.
#pragma once

#include "plugins/thrift/stream.h"

namespace gradferry::thrift {

class PlainStream final : public Stream {
 public:
  // fd is the connection's and outlives this.
  explicit PlainStream(int fd) : fd_(fd) {}

  IoResult Handshake(uint32_t*) override { return {}; }
  IoResult Read(const iovec* pieces, size_t count) override;
  IoResult Write(const iovec* pieces, size_t count) override;
  void Finish() override;

 private:
  const int fd_;
};

}  // namespace gradferry::thrift
