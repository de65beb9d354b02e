// Messages as frames: a header with everything but the bytes of large tensors, and segments with those. Small tensors
// are packed together into the first segment ("inline"), so that an ordinary call is a header and at most one segment;
// larger ones are sent from and received into their own memory, one segment per part.
//
// Header: magic and version (4 bytes), kind (1), body; a tensor's description stands where the tensor does, so that the
// message's tensor table is the descriptions in the order of the body. All numbers are little endian, lengths are
// checked against what is there before anything is allocated, and every byte must be used: trailing bytes, unknown
// kinds and unknown flags are errors (kDataLoss). docs/protocol.md says it byte by byte. The seal that ends a header on
// its way is the connection's business (seal.h) and not here.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "impl/base/status.h"
#include "impl/tensor/packing.h"
#include "impl/wire/messages.h"

namespace gradferry {

// What a peer may send; all finite. From the configuration's [limits].
struct WireLimits {
  uint64_t message_bytes = uint64_t{16} << 30;  // header and segments of one message
  uint64_t header_bytes = uint64_t{16} << 20;
  uint32_t tensors = 100000;  // per message
  uint32_t values = 1000000;  // per message, nested ones included
  uint32_t nesting = 16;      // of lists; 64 at most
  uint32_t dims = 64;         // of a tensor; 64 at most
  uint32_t name_bytes = 255;
  uint32_t profile_events = 10000;  // of the profile that a reply brings
  uint32_t error_chain = 16;        // links, 1 to 255; longer chains lose what is before the root cause when sent
  bool checksum_segments = false;   // not a limit, but of this side as well: links cover the segments that they send
};

// Tensor parts of at most this many bytes are packed into the inline segment. Part of the protocol: the receiver knows
// by it which parts to expect there.
inline constexpr uint64_t kInlineBytes = 16 * 1024;

struct FrameSegment {
  void* data = nullptr;
  uint64_t length = 0;
};

struct EncodedFrame {
  std::string header;
  std::vector<FrameSegment> segments;
  std::shared_ptr<void> owner;  // keeps the segments' memory
};

// What kind of message a header has, without reading it; false for what is no header.
bool IsTensorChunk(std::string_view header);
bool IsPropagateGradients(std::string_view header);

// An RpcWithProfiling without what it wraps.
struct RpcProfiling {
  uint32_t most_events = 0;
  Profile profile;
};

// record_grad[i] marks the i-th tensor of the table as requiring grad on the wire; empty: none does. Errors: a tensor
// that cannot be packed (the error names the value), a DefaultValue, a string or name that is not UTF-8
// (kInvalidArgument), a limit exceeded (kResourceExhausted). Segments may lie in the tensors' own memory: they must not
// be written to until the frame is sent.
Result<EncodedFrame> EncodeFrame(const Message& message, const std::vector<bool>& record_grad,
                                 const WireLimits& limits);

struct DecodedMessage {
  Message message;
  std::vector<bool> requires_grad;  // per tensor of the table
  // What came around a call or reply that is profiled; UnwrapProfiling puts it here.
  std::optional<RpcProfiling> profiling;
  // FrameDecoder::held.
  std::shared_ptr<void> held;
};

// Takes an RpcWithProfiling apart: message becomes what it wrapped. Does nothing to other messages.
void UnwrapProfiling(DecodedMessage& decoded);

// The version in a frame's header, 0 when it is none of ours. A frame is encoded in kProtocolVersion (Hello
// and HelloReply in their own); a connection of another version sets that one: there is no kind of message whose layout
// differs.
uint16_t FrameVersion(std::string_view header);
void SetFrameVersion(std::string& header, uint16_t version);

// Decodes in two phases. New checks the whole header and the segments' lengths, allocates the tensors, and says where
// the segments go; after they are filled, Finish gives the message.
class FrameDecoder {
 public:
  static Result<std::unique_ptr<FrameDecoder>> New(std::string_view header, const std::vector<uint64_t>& lengths,
                                                   const WireLimits& limits);
  // The same for a message whose segments come in chunks: they are those that its tensors need, which is at least one.
  static Result<std::unique_ptr<FrameDecoder>> NewInChunks(std::string_view header, const WireLimits& limits);
  virtual ~FrameDecoder() = default;
  // One per length; data is NULL where the length is 0.
  virtual const std::vector<FrameSegment>& segments() const = 0;
  virtual Result<DecodedMessage> Finish() = 0;  // once
  // Of whoever decodes: kept as long as the message is, which Finish hands it to.
  std::shared_ptr<void> held;
};

}  // namespace gradferry
