// A frame of the host as the bytes of a Thrift message: pieces of memory in order, those of the header and the segments
// in place, between them what is ours. Nothing is allocated for a frame with few segments.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "gradferry/transport.h"
#include "plugins/thrift/status.h"

namespace gradferry::thrift {

// Whether the frame can travel: GF_INVALID_ARGUMENT or GF_OUT_OF_RANGE when the host broke a limit.
Status CheckFrame(const gf_transport_frame& frame);

class OutFrame {
 public:
  // frame is one that CheckFrame takes; its header and segments stay where they are until the bytes have been sent, the
  // struct and its array need not.
  explicit OutFrame(const gf_transport_frame& frame);
  // Bytes of the plugin's own.
  explicit OutFrame(std::string bytes);
  // It points into itself.
  OutFrame(const OutFrame&) = delete;
  OutFrame& operator=(const OutFrame&) = delete;

  // What is still to be sent.
  const iovec* pieces() const { return next_; }
  size_t piece_count() const { return static_cast<size_t>(end_ - next_); }
  bool done() const { return next_ == end_; }
  // So many of these bytes have been sent.
  void Advance(size_t bytes);

  uint64_t total() const { return total_; }  // bytes of the whole

 private:
  static constexpr size_t kFew = 4;
  static constexpr size_t FillingSize(size_t segments);
  static constexpr size_t PieceCount(size_t segments) { return 3 + 2 * segments; }

  void Add(void* data, size_t length);

  iovec* next_ = nullptr;
  iovec* end_ = nullptr;
  uint64_t total_ = 0;
  std::string own_;
  std::unique_ptr<char[]> filling_;  // with many segments
  std::unique_ptr<iovec[]> pieces_;
  char few_filling_[kFew * 12 + 48];
  iovec few_pieces_[3 + 2 * kFew];
};

}  // namespace gradferry::thrift
