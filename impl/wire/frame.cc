// Encoding of frames; see frame.h. The segments view the tensors where they lie, except that several small parts are
// copied into one segment.
#include "impl/wire/frame.h"

#include <cstring>
#include <utility>

#include "impl/wire/encoder.h"
#include "impl/wire/layout.h"
#include "impl/wire/message_fields.h"
#include "impl/wire/wire_format.h"

namespace gradferry {
namespace {

// What the segments point into.
struct FrameMemory {
  std::vector<at::Tensor> tensors;
  std::unique_ptr<char[]> inline_segment;
};

// One after the other with zeros between: what lies around them here is nobody's business over there.
std::unique_ptr<char[]> PackInline(const std::vector<TensorPart>& parts, uint64_t bytes) {
  std::unique_ptr<char[]> memory(new char[bytes]);
  SegmentLayout layout;
  for (const TensorPart& part : parts) {
    if (!SegmentLayout::IsInline(part.length)) continue;
    const uint64_t end = layout.inline_bytes();
    const uint64_t offset = layout.Add(part.length);
    std::memset(memory.get() + end, 0, offset - end);
    std::memcpy(memory.get() + offset, part.data, part.length);
  }
  return memory;
}

Status CheckTotal(const char* message, const EncodedHeader& header, const SegmentLayout& layout, uint64_t most) {
  uint64_t total = header.bytes.size();
  bool fits = total <= most && layout.inline_bytes() <= most - total;
  if (fits) total += layout.inline_bytes();
  for (const uint64_t length : layout.large()) {
    fits = fits && length <= most - total;
    if (fits) total += length;
  }
  if (fits) return OkStatus();
  return Status(Code::kResourceExhausted,
                StrCat(message, ": header and tensors together are larger than limits.message_bytes (", most, ")"));
}

EncodedFrame Lay(EncodedHeader header, const SegmentLayout& layout) {
  EncodedFrame frame{std::move(header.bytes), {}, nullptr};
  if (header.parts.empty()) return frame;
  auto memory = std::make_shared<FrameMemory>();
  // A part that is alone need not be copied: its bytes are the segment.
  const bool copied = layout.inline_parts() > 1;
  if (copied) {
    memory->inline_segment = PackInline(header.parts, layout.inline_bytes());
    frame.segments.push_back({memory->inline_segment.get(), layout.inline_bytes()});
  }
  std::vector<FrameSegment> large;
  for (TensorPart& part : header.parts) {
    const bool is_inline = SegmentLayout::IsInline(part.length);
    if (is_inline && copied) continue;
    (is_inline ? frame.segments : large).push_back({part.data, part.length});
    memory->tensors.push_back(std::move(part.owner));
  }
  frame.segments.insert(frame.segments.end(), large.begin(), large.end());
  frame.owner = std::move(memory);
  return frame;
}

bool HasKind(std::string_view header, MessageKind kind) {
  return header.size() >= kPrefixBytes && static_cast<uint8_t>(header[kPrefixBytes - 1]) == static_cast<uint8_t>(kind);
}

}  // namespace

bool IsTensorChunk(std::string_view header) { return HasKind(header, MessageKind::kTensorChunk); }
bool IsPropagateGradients(std::string_view header) { return HasKind(header, MessageKind::kPropagateGradients); }

void UnwrapProfiling(DecodedMessage& decoded) {
  auto* profiled = std::get_if<RpcWithProfiling>(&decoded.message);
  if (profiled == nullptr) return;
  decoded.profiling = RpcProfiling{profiled->most_events, std::move(profiled->profile)};
  auto wrapped = std::move(profiled->wrapped);
  std::visit([&](auto& message) { decoded.message = std::move(message); }, wrapped);
}

uint16_t FrameVersion(std::string_view header) {
  uint16_t version = 0;
  if (header.size() < kPrefixBytes || header.substr(0, kFrameMagic.size()) != kFrameMagic) return version;
  std::memcpy(&version, header.data() + kFrameMagic.size(), sizeof version);
  return version;
}

void SetFrameVersion(std::string& header, uint16_t version) {
  std::memcpy(header.data() + kFrameMagic.size(), &version, sizeof version);
}

Result<EncodedFrame> EncodeFrame(const Message& message, const std::vector<bool>& record_grad,
                                 const WireLimits& limits) {
  try {
    GF_ASSIGN_OR_RETURN(EncodedHeader header, EncodeHeader(message, record_grad, limits));
    SegmentLayout layout;
    for (const TensorPart& part : header.parts) layout.Add(part.length);
    GF_RETURN_IF_ERROR(CheckTotal(MessageName(message), header, layout, limits.message_bytes));
    return Lay(std::move(header), layout);
  } catch (...) {
    return StatusFromCurrentException().WithOperation(MessageName(message));
  }
}

}  // namespace gradferry
