#include "plugins/thrift/frame_reader.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace gradferry::thrift {
namespace {

// With small frames only: as much as there may be, for each read is a call of the system.
constexpr size_t kMostReadAhead = 16 * 1024;
// With large ones: what is read into the buffer beyond their descriptor has to be copied.
constexpr size_t kLeastReadAhead = 512;
// What makes a frame a large one.
constexpr uint64_t kLargeFrame = 8 * 1024;

Status Bad(const std::string& what) { return {GF_DATA_LOSS, what}; }

// What it is that speaks no Thrift.
std::string Guess(const char* bytes) {
  for (const char* verb : {"GET ", "POST", "HEAD", "PUT ", "OPTI"}) {
    if (std::memcmp(bytes, verb, 4) == 0) return "an HTTP request came instead of a Thrift message";
  }
  if (bytes[0] == 0x16 && bytes[1] == 0x03) return "a TLS handshake came to an address without TLS";
  return "what came is no Thrift message (framed, strict binary protocol)";
}

// Length, version, a name of no bytes, sequence number, no arguments.
constexpr uint64_t kShortestMessage = kLengthSize + 4 + 4 + 4 + 1;

}  // namespace

// ---- Where bytes go ----------------------------------------------------------------------------------------------

size_t FrameReader::Want(iovec* pieces) {
  size_t count = 0;
  if (state_ == State::kSegments) {
    // Two pieces for each segment, and one for the buffer behind the last.
    size_t index = segment_;
    uint64_t offset = offset_;
    for (; index < segments_.size() && count + 3 <= kMaxPieces; ++index, offset = 0) {
      const gf_transport_segment& segment = segments_[index];
      if (offset < kLengthSize) {
        pieces[count++] = iovec{lengths_[index - segment_] + offset, kLengthSize - offset};
        offset = kLengthSize;
      }
      const uint64_t done = offset - kLengthSize;
      if (done < segment.length)
        pieces[count++] = iovec{static_cast<char*>(segment.data) + done, segment.length - done};
    }
    room_ = 0;
    if (index < segments_.size()) return count;
  }
  MakeRoom();
  pieces[count++] = iovec{buffer_.get() + end_, room_};
  return count;
}

// Room for what is needed, and for more at once, at the end of the buffer.
void FrameReader::MakeRoom() {
  const size_t have = available();
  // What has not come yet is only a claim.
  const uint64_t trusted = std::min<uint64_t>(needed_, std::max<size_t>(kMostReadAhead, 2 * have));
  const size_t wanted = std::max<size_t>(static_cast<size_t>(trusted), have + ask_);
  if (capacity_ < wanted || (capacity_ > kMostReadAhead && wanted <= kMostReadAhead)) {
    const size_t capacity = std::max(wanted, kMostReadAhead);
    std::unique_ptr<char[]> larger(new char[capacity]);
    if (have != 0) std::memcpy(larger.get(), bytes(), have);
    buffer_ = std::move(larger);
    capacity_ = capacity;
    begin_ = 0;
    end_ = have;
  } else if (begin_ + wanted > capacity_ || have == 0) {
    if (have != 0) std::memmove(buffer_.get(), bytes(), have);
    begin_ = 0;
    end_ = have;
  }
  room_ = wanted - have;
}

Status FrameReader::Took(size_t bytes) {
  if (state_ == State::kSegments) {
    if (Status status = Advance(&bytes); !status.ok()) return status;
  }
  end_ += bytes;
  // There may be more of these.
  if (bytes == room_ && state_ == State::kStart) ask_ = std::min(2 * ask_, kMostReadAhead);
  for (bool more = true; more;) {
    more = false;
    if (Status status = Step(&more); !status.ok()) return status;
  }
  return {};
}

Status FrameReader::Advance(size_t* bytes) {
  const size_t first = segment_;
  while (segment_ < segments_.size()) {
    if (offset_ < kLengthSize) {
      const size_t step = std::min<size_t>(kLengthSize - offset_, *bytes);
      offset_ += step;
      *bytes -= step;
      if (offset_ < kLengthSize) break;
      if (Load32(lengths_[segment_ - first]) != segments_[segment_].length) {
        return Bad("segment " + std::to_string(segment_) + " of a frame has another length than was announced");
      }
    }
    const uint64_t whole = kLengthSize + segments_[segment_].length;
    const uint64_t step = std::min<uint64_t>(whole - offset_, *bytes);
    offset_ += step;
    *bytes -= step;
    if (offset_ < whole) break;
    ++segment_;
    offset_ = 0;
  }
  if (segment_ != first && offset_ != 0 && offset_ < kLengthSize) {
    std::memcpy(lengths_[0], lengths_[segment_ - first], offset_);
  }
  if (segment_ == segments_.size()) state_ = State::kEnd;
  return {};
}

// ---- What they mean ----------------------------------------------------------------------------------------------

Status FrameReader::Step(bool* more) {
  switch (state_) {
    case State::kStart:
      return ParseStart(more);
    case State::kDescriptor:
      return ParseDescriptor(more);
    case State::kSegments:
      return ParseSegments(more);
    case State::kEnd:
      return ParseEnd(more);
    case State::kMessage:
      return ParseMessage(more);
  }
  return {};
}

// Until it is known whether it is a frame, and how long its header is.
Status FrameReader::ParseStart(bool* more) {
  needed_ = kPrefixSize;
  if (available() < 8) return {};
  // Before more is waited for: others than Thrift's clients may have nothing more to say.
  const uint32_t version = Load32(bytes() + kLengthSize);
  if ((version & 0xFFFFFF00u) != 0x80010000u) return Bad(Guess(bytes()));
  message_size_ = kLengthSize + static_cast<uint64_t>(Load32(bytes()));
  if (message_size_ > kLengthSize + kMaxMessage) return Bad("a Thrift message has a negative length");
  if (message_size_ < kShortestMessage) return Bad("a Thrift message is shorter than its own beginning");
  if (available() < kSequenceOffset) return {};
  if (std::memcmp(bytes() + kLengthSize, kFrameStart, kMessageStart) != 0) {
    const uint64_t most = sink_->MaxMessage();
    if (most == 0) return Bad("a Thrift message came that is no frame");
    if (message_size_ > most) {
      return {GF_RESOURCE_EXHAUSTED, "a Thrift message of " + std::to_string(message_size_) +
                                         " bytes is longer than the " + std::to_string(most) + " that are taken"};
    }
    state_ = State::kMessage;
    *more = true;
    return {};
  }
  if (message_size_ < DescriptorSize(1, 0) + 1) {
    return Bad("a Thrift message of " + std::to_string(message_size_) + " bytes is too short");
  }
  if (available() < kPrefixSize) return {};
  if (std::memcmp(bytes() + kHeaderFieldOffset, kHeaderField, sizeof(kHeaderField)) != 0) {
    return Bad("a frame does not begin with its header");
  }
  header_length_ = Load32(bytes() + kPrefixSize - 4);
  if (header_length_ == 0 || header_length_ > kMaxHeader) {
    return Bad("a frame's header has " + std::to_string(header_length_) + " bytes; allowed are 1 to " +
               std::to_string(kMaxHeader));
  }
  needed_ = DescriptorSize(header_length_, 0);
  if (needed_ + 1 > message_size_) return Bad("a frame's header is longer than the frame");
  state_ = State::kDescriptor;
  *more = true;
  return {};
}

// Until all lengths are there.
Status FrameReader::ParseDescriptor(bool* more) {
  if (available() < needed_) return {};
  const char* list = bytes() + kPrefixSize + header_length_;
  if (std::memcmp(list, kLengthsField, sizeof(kLengthsField)) != 0) {
    return Bad("a frame's header is not followed by the lengths of its segments");
  }
  const uint64_t count = Load32(list + sizeof(kLengthsField));
  if (count > kMaxSegments) {
    return Bad("a frame has " + std::to_string(count) + " segments; allowed are " + std::to_string(kMaxSegments));
  }
  needed_ = DescriptorSize(header_length_, count);
  if (needed_ + count * kLengthSize + 1 > message_size_) return Bad("a frame has more segments than bytes for them");
  if (available() < needed_) return {};

  const char* lengths = list + kListHeaderSize;
  uint64_t size = needed_ + 1;
  announced_.resize(count);
  frame_bytes_ = header_length_;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t length = Load64(lengths + 8 * i);
    if (length > message_size_) return Bad("segment " + std::to_string(i) + " of a frame is longer than the frame");
    announced_[i] = {nullptr, length};
    size += kLengthSize + length;
    frame_bytes_ += length;
  }
  if (size != message_size_) {
    return Bad("a frame's length is " + std::to_string(message_size_) + ", its parts make " + std::to_string(size));
  }
  const char* end = lengths + 8 * count;
  if (std::memcmp(end, kSegmentsField, sizeof(kSegmentsField)) != 0 || Load32(end + sizeof(kSegmentsField)) != count) {
    return Bad("a frame's segments do not follow their lengths, or are not as many");
  }
  if (Status status = Announce(); !status.ok()) return status;
  begin_ += needed_;
  needed_ = 1;
  if (frame_bytes_ > kLargeFrame) ask_ = kLeastReadAhead;
  *more = true;
  return {};
}

Status FrameReader::Announce() {
  gf_transport_frame frame{};
  frame.struct_size = sizeof(frame);
  frame.segment_count = static_cast<uint32_t>(announced_.size());
  frame.header = bytes() + kPrefixSize;
  frame.header_length = header_length_;
  frame.segments = announced_.data();
  segments_ = announced_;
  if (Status status = sink_->OnDescriptor(frame, segments_.data()); !status.ok()) return status;
  state_ = State::kSegments;
  segment_ = 0;
  offset_ = 0;
  for (size_t i = 0; i < segments_.size(); ++i) {
    segments_[i].length = announced_[i].length;
    if (segments_[i].length != 0 && segments_[i].data == nullptr) {
      return {GF_INTERNAL, "the host gave segment " + std::to_string(i) + " of a frame no memory"};
    }
  }
  return {};
}

// What has come to the buffer already belongs into the segments.
Status FrameReader::ParseSegments(bool* more) {
  while (segment_ < segments_.size()) {
    const gf_transport_segment& segment = segments_[segment_];
    if (offset_ < kLengthSize) {
      const size_t step = std::min<size_t>(kLengthSize - offset_, available());
      std::memcpy(lengths_[0] + offset_, bytes(), step);
      begin_ += step;
      offset_ += step;
      if (offset_ < kLengthSize) return {};
      if (Load32(lengths_[0]) != segment.length) {
        return Bad("segment " + std::to_string(segment_) + " of a frame has another length than was announced");
      }
    }
    const uint64_t done = offset_ - kLengthSize;
    const uint64_t step = std::min<uint64_t>(segment.length - done, available());
    if (step != 0) std::memcpy(static_cast<char*>(segment.data) + done, bytes(), step);
    begin_ += step;
    offset_ += step;
    copied_ += step;
    if (done + step < segment.length) return {};
    ++segment_;
    offset_ = 0;
  }
  state_ = State::kEnd;
  *more = true;
  return {};
}

Status FrameReader::ParseEnd(bool* more) {
  if (available() < 1) return {};
  if (*bytes() != 0) return Bad("a frame does not end after its segments");
  ++begin_;
  state_ = State::kStart;
  needed_ = kPrefixSize;
  sink_->OnWholeFrame(frame_bytes_);
  *more = available() != 0;
  return {};
}

Status FrameReader::ParseMessage(bool* more) {
  needed_ = message_size_;
  if (available() < needed_) return {};
  const std::string_view message(bytes() + kLengthSize, static_cast<size_t>(message_size_ - kLengthSize));
  if (Status status = sink_->OnMessage(message); !status.ok()) return status;
  begin_ += static_cast<size_t>(message_size_);
  state_ = State::kStart;
  needed_ = kPrefixSize;
  *more = available() != 0;
  return {};
}

}  // namespace gradferry::thrift
