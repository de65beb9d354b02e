// Makes frames out of the bytes of a connection, wherever they were cut. It reads nothing itself: Want says where the
// next bytes shall go, which is a buffer for what comes before a frame's segments, and the host's own memory for the
// segments; Took looks at what has come. So it can be driven by any thread, one at a time, and by a test.
//
// Nothing is believed: the buffer grows with what has arrived, not with what was announced, and the host is asked for
// memory only when all lengths of a frame agree with each other.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "gradferry/transport.h"
#include "plugins/thrift/status.h"
#include "plugins/thrift/wire.h"

namespace gradferry::thrift {

class FrameReader {
 public:
  class Sink {
   public:
    // A frame arrives. Fills the data of the segments, or refuses; then its status is what Took returns.
    virtual Status OnDescriptor(const gf_transport_frame& frame, gf_transport_segment* segments) = 0;
    // It has arrived whole. bytes: of its header and segments.
    virtual void OnWholeFrame(uint64_t bytes) = 0;
    // The most bytes that a message other than `frame` may have; 0: none is welcome.
    virtual uint64_t MaxMessage() = 0;
    // Such a message has arrived: version, name, sequence number, arguments.
    virtual Status OnMessage(std::string_view message) = 0;

   protected:
    ~Sink() = default;
  };

  // How many pieces Want gives at most.
  static constexpr size_t kMaxPieces = 16;

  explicit FrameReader(Sink* sink) : sink_(sink) {}

  // Where the next bytes go; returns the number of pieces, at least 1.
  size_t Want(iovec* pieces);
  // So many bytes have come to where Want said. An error is the end: nothing may be called any more.
  Status Took(size_t bytes);

  // A frame was announced and has not arrived whole.
  bool in_frame() const { return state_ == State::kSegments || state_ == State::kEnd; }
  // Something of a message has come, but not all.
  bool in_message() const { return state_ != State::kStart || begin_ != end_; }
  // Bytes of segments that were copied out of the buffer so far.
  uint64_t copied() const { return copied_; }

 private:
  enum class State { kStart, kDescriptor, kSegments, kEnd, kMessage };

  const char* bytes() const { return buffer_.get() + begin_; }
  size_t available() const { return end_ - begin_; }

  void MakeRoom();
  // Moves on over bytes of the segments that have come to their places; returns those that are left.
  Status Advance(size_t* bytes);
  // As far as what has arrived allows. *more: it is worth calling again.
  Status Step(bool* more);
  Status ParseStart(bool* more);
  Status ParseDescriptor(bool* more);
  Status Announce();
  Status ParseSegments(bool* more);
  Status ParseEnd(bool* more);
  Status ParseMessage(bool* more);

  Sink* const sink_;
  State state_ = State::kStart;

  std::unique_ptr<char[]> buffer_;
  size_t capacity_ = 0;
  size_t begin_ = 0;
  size_t end_ = 0;
  uint64_t needed_ = kPrefixSize;  // bytes from begin_ on, for the next step
  size_t ask_ = 1024;              // how much to read at a time when more than needed_ may come
  size_t room_ = 0;                // of the buffer, that the last Want gave

  uint64_t message_size_ = 0;  // with its length
  uint64_t header_length_ = 0;
  std::vector<gf_transport_segment> announced_;
  std::vector<gf_transport_segment> segments_;
  uint64_t frame_bytes_ = 0;
  size_t segment_ = 0;                                 // the one that arrives
  uint64_t offset_ = 0;                                // in it, its length in front included
  std::array<char[kLengthSize], kMaxPieces> lengths_;  // of it and those after it
  uint64_t copied_ = 0;
};

}  // namespace gradferry::thrift
