// The frames of one connection that are on their way out: what the socket has not taken yet, and which sends are
// complete and have not been reported. No locks; the connection's guards it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "gradferry/transport.h"
#include "plugins/thrift/frame_writer.h"
#include "plugins/thrift/stream.h"

namespace gradferry::thrift {

class Outbox {
 public:
  struct Sent {
    void* op;
    uint64_t bytes;
  };

  bool empty() const { return waiting_.empty(); }

  // Writes the frame at once as far as the stream takes it; what is left waits. Only when nothing waits. What of it
  // goes wrong is not the frame's fault and is returned.
  IoResult Write(Stream* stream, const gf_transport_frame& frame, void* op);
  // Waits behind the others.
  void Add(const gf_transport_frame& frame, void* op);
  // Bytes of the plugin's own, which nobody is told about.
  void Add(std::string bytes);
  // An operation that needs nothing more to be sent.
  void Complete(void* op, uint64_t bytes);
  // Writes what waits. kBytes: nothing waits any more.
  IoResult Flush(Stream* stream);

  // Complete and not taken yet.
  const std::vector<Sent>& sent() const { return sent_; }
  uint64_t sent_bytes() const { return sent_bytes_; }
  // Moves them to *out, which is empty.
  void TakeSent(std::vector<Sent>* out);
  // The operations that will not be completed any more.
  std::vector<void*> TakeWaiting();

 private:
  struct Waiting {
    std::unique_ptr<OutFrame> frame;
    void* op;
    bool reported;
  };

  std::deque<Waiting> waiting_;
  std::vector<Sent> sent_;
  uint64_t sent_bytes_ = 0;
};

}  // namespace gradferry::thrift
