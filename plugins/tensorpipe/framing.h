// How a frame of the host becomes a message of TensorPipe, and back. The header travels in the message's metadata
// behind a prefix that tells where each segment is:
//
//   byte 0      kFormat
//   bytes 1-4   number of segments, little endian
//   then        two bits per segment, first segment in the lowest bits: how it travels (Carriage); unused bits are 0
//   then        the header
//
// A welcome is byte 0 alone, with kWelcome in it.
//
// Payloads go over the connection that carries the metadata; tensors go over a channel, which pays for its extra
// messages only when there is much to carry.
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
// A channel costs two messages on connections of its own and a hop to another thread. Reading a smaller segment from
// the socket at once is quicker than that; beyond, the copies that a channel saves outweigh it.
constexpr uint64_t kTensorFrom = 64 * 1024;

// TensorPipe's shm transport writes a length in 32 bits, and the reader aborts its process when it is not what it was
// told.
constexpr uint64_t kMaxSegmentOverShm = 0xFFFFFFFFu;

// The frame as a message; its segments' memory is borrowed. GF_INVALID_ARGUMENT or GF_OUT_OF_RANGE when the host broke
// a limit.
Status ToMessage(const gf_transport_frame& frame, uint64_t max_segment, ::tensorpipe::Message* out);

// The message without a frame by which the accepting end says that the connection stands.
::tensorpipe::Message WelcomeMessage();
bool IsWelcome(const ::tensorpipe::Descriptor& descriptor);

// A frame that arrives: views into the descriptor.
struct Announcement {
  std::string_view header;
  std::vector<gf_transport_segment> segments;  // lengths; data is null
  std::vector<bool> is_tensor;                 // how those of non-zero length travel
};

// Checks the descriptor against its prefix. Whatever the peer sent, the message can be read safely when this is OK;
// else GF_DATA_LOSS.
Status FromDescriptor(const ::tensorpipe::Descriptor& descriptor, Announcement* out);

// Where TensorPipe shall put the announced segments: their data pointers are set now. GF_INTERNAL when one is missing.
Status ToAllocation(const Announcement& announcement, const std::vector<gf_transport_segment>& filled,
                    ::tensorpipe::Allocation* out);

// Bytes of header and segments.
uint64_t TotalBytes(uint64_t header_length, const gf_transport_segment* segments, size_t count);

}  // namespace gradferry::tp
