// How a frame of the host becomes a message of TensorPipe, and back. The header travels in the message's metadata
// behind a prefix that tells where each segment is, and with the smallest segments behind it:
//
//   byte 0      kFormat, or kLendingFormat
//   bytes 1-4   number of segments
//   then        two bits per segment, first segment in the lowest bits: how it travels (Carriage); unused bits are 0
//   then        for each inline segment its length in four bytes
//   then        kLendingFormat: the frame's number in eight bytes, and for each segment that travels as a tensor its
//               address and its length in eight bytes each; the receiver reads it from there and says when it has
//   then        the header
//   then        the bytes of the inline segments
//
// Numbers are little endian. A welcome is byte 0 alone, with kWelcome in it.
//
// Payloads go over the connection that carries the metadata, each in a write of its own; tensors go over a channel,
// with messages of its own. Each step is worth its price from a certain size on.
#pragma once

#include <tensorpipe/core/message.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "plugins/tensorpipe/status.h"

namespace gradferry::tp {

// The shm transport needs the metadata whole in its ring of 2 MiB; the rest is for the descriptions of the segments.
constexpr uint64_t kMaxHeader = 1024 * 1024;
constexpr uint32_t kMaxSegments = 16 * 1024;
// A payload costs a write of its own here, and two reads and their turns of the loop there. Up to here copying the
// bytes along with the header takes less of the processors (half for 1 KiB, nine tenths for 64 KiB).
constexpr uint64_t kPayloadFrom = 64 * 1024;
constexpr uint64_t kMaxInline = 64 * 1024;  // of all segments of a frame together
// Reading the sender's memory saves a copy, and costs a message more and a hop to another thread. Up to here that is
// too much; from about 512 KiB on it pays.
constexpr uint64_t kTensorFrom = 256 * 1024;
// What the host has under way of a large segment, in two pieces. 64 MiB from one process to another by cma, in pieces of
// 1, 4, 16 and 64 MiB, take 29, 25, 38 and 231 ms at best on a loaded machine with two processors: larger pieces are
// fresh memory each time.
constexpr uint64_t kChunk = 8 * 1024 * 1024;
// TensorPipe's shm transport writes a length in 32 bits, and the reader aborts its process when it is not what it was
// told.
constexpr uint64_t kMaxSegmentOverShm = 0xFFFFFFFFu;

// The frame as a message; its segments' memory is borrowed. GF_INVALID_ARGUMENT or GF_OUT_OF_RANGE when the host broke
// a limit.
Status ToMessage(const gf_transport_frame& frame, uint64_t max_segment, ::tensorpipe::Message* out);

// The same, for a receiver that reads large segments from this process. *lent: there are some.
Status ToLendingMessage(const gf_transport_frame& frame, uint64_t number, ::tensorpipe::Message* out, bool* lent);

// The message without a frame by which the accepting end says that the connection stands.
::tensorpipe::Message WelcomeMessage();
bool IsWelcome(const ::tensorpipe::Descriptor& descriptor);

// How a segment travels.
enum class Carriage : uint8_t { kEmpty = 0, kPayload = 1, kTensor = 2, kInline = 3 };

// A frame that arrives: views into the descriptor.
struct Announcement {
  std::string_view header;
  std::string_view inline_bytes;
  std::vector<gf_transport_segment> segments;  // lengths; data is null
  std::vector<Carriage> carriages;             // of each
  bool lends = false;                          // tensors are to be read from the sender
  uint64_t number = 0;                         // then
  std::vector<uint64_t> addresses;             // then, of each tensor
};

// Checks the descriptor against its prefix. Whatever the peer sent, the message can be read safely when this is OK;
// else GF_DATA_LOSS.
Status FromDescriptor(const ::tensorpipe::Descriptor& descriptor, Announcement* out);

// Copies the inline segments to where the host wants them and tells TensorPipe where to put the others: the segments'
// data pointers are set now. GF_INTERNAL when one is missing.
Status ToAllocation(const Announcement& announcement, const std::vector<gf_transport_segment>& filled,
                    ::tensorpipe::Allocation* out);

// Where the segments that the sender lends go. After ToAllocation.
std::vector<gf_transport_segment> LentSegments(const Announcement& announcement,
                                               const std::vector<gf_transport_segment>& filled);

// Bytes of header and segments.
uint64_t TotalBytes(uint64_t header_length, const gf_transport_segment* segments, size_t count);

}  // namespace gradferry::tp
