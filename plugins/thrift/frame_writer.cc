#include "plugins/thrift/frame_writer.h"

#include <string>
#include <utility>

#include "plugins/thrift/wire.h"

namespace gradferry::thrift {
namespace {

uint64_t MessageSize(const gf_transport_frame& frame) {
  uint64_t size = DescriptorSize(frame.header_length, frame.segment_count) + 1;
  for (uint32_t i = 0; i < frame.segment_count; ++i) {
    const uint64_t length = frame.segments[i].length;
    if (length > kMaxMessage) return ~uint64_t{0};
    size += kLengthSize + length;
  }
  return size;
}

char* Put(char* to, const void* from, size_t length) {
  std::memcpy(to, from, length);
  return to + length;
}

char* PutList(char* to, const char (&field)[4], uint32_t count) {
  to = Put(to, field, sizeof(field));
  Store32(to, count);
  return to + 4;
}

}  // namespace

Status CheckFrame(const gf_transport_frame& frame) {
  if (frame.header_length == 0) return {GF_INVALID_ARGUMENT, "a frame needs a header"};
  if (frame.header_length > kMaxHeader) {
    return {GF_OUT_OF_RANGE, "a header of " + std::to_string(frame.header_length) + " bytes is longer than " +
                                 std::to_string(kMaxHeader)};
  }
  if (frame.segment_count > kMaxSegments) {
    return {GF_OUT_OF_RANGE, std::to_string(frame.segment_count) + " segments are more than the " +
                                 std::to_string(kMaxSegments) + " that a frame holds"};
  }
  for (uint32_t i = 0; i < frame.segment_count; ++i) {
    if (frame.segments[i].data == nullptr && frame.segments[i].length != 0) {
      return {GF_INVALID_ARGUMENT, "segment " + std::to_string(i) + " has no memory"};
    }
  }
  if (MessageSize(frame) - kLengthSize > kMaxMessage) {
    return {GF_OUT_OF_RANGE,
            "a frame is longer than a Thrift message may be, which is 2^31 - 1 bytes; send it in pieces"};
  }
  return {};
}

// Prefix, both lists' headers, the lengths twice, the end.
constexpr size_t OutFrame::FillingSize(size_t segments) {
  return kPrefixSize + 2 * kListHeaderSize + segments * (8 + kLengthSize) + 1;
}

OutFrame::OutFrame(const gf_transport_frame& frame) {
  static_assert(sizeof(few_filling_) >= FillingSize(kFew));
  const uint32_t count = frame.segment_count;
  char* filling = few_filling_;
  end_ = few_pieces_;
  if (count > kFew) {
    filling_.reset(new char[FillingSize(count)]);
    pieces_.reset(new iovec[PieceCount(count)]);
    filling = filling_.get();
    end_ = pieces_.get();
  }
  next_ = end_;

  char* const prefix = filling;
  char* at = prefix + kLengthSize;
  at = Put(at, kFrameStart, kMessageStart);
  Store32(at, 0);
  at = Put(at + 4, kHeaderField, sizeof(kHeaderField));
  Store32(at, static_cast<uint32_t>(frame.header_length));
  at += 4;
  Add(prefix, static_cast<size_t>(at - prefix));
  Add(const_cast<void*>(frame.header), frame.header_length);

  char* begin = at;
  at = PutList(at, kLengthsField, count);
  for (uint32_t i = 0; i < count; ++i, at += 8) Store64(at, frame.segments[i].length);
  at = PutList(at, kSegmentsField, count);
  for (uint32_t i = 0; i < count; ++i) {
    Store32(at, static_cast<uint32_t>(frame.segments[i].length));
    at += 4;
    if (frame.segments[i].length == 0) continue;
    Add(begin, static_cast<size_t>(at - begin));
    Add(frame.segments[i].data, frame.segments[i].length);
    begin = at;
  }
  *at++ = 0;
  Add(begin, static_cast<size_t>(at - begin));
  Store32(prefix, static_cast<uint32_t>(total_ - kLengthSize));
}

OutFrame::OutFrame(std::string bytes) : own_(std::move(bytes)) {
  next_ = end_ = few_pieces_;
  Add(own_.data(), own_.size());
}

void OutFrame::Add(void* data, size_t length) {
  *end_++ = iovec{data, length};
  total_ += length;
}

void OutFrame::Advance(size_t bytes) {
  while (bytes > 0) {
    if (bytes < next_->iov_len) {
      next_->iov_base = static_cast<char*>(next_->iov_base) + bytes;
      next_->iov_len -= bytes;
      return;
    }
    bytes -= next_->iov_len;
    ++next_;
  }
}

}  // namespace gradferry::thrift
