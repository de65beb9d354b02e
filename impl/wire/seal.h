// What makes a frame tell of its own loss: the last bytes of each header say which frame of the connection it is (of
// this direction, counted from 0) and carry checksums. Written and read by links, when a frame is handed to the
// transport and when it comes from there; what is before them is the message (frame.h), the kind of message still at
// byte 4. docs/protocol.md has the table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "impl/base/status.h"
#include "impl/wire/frame.h"

namespace gradferry {

// sequence u64, flags u8, checksum of the segments u32, checksum of the header before these last four bytes u32
inline constexpr size_t kSealBytes = 17;

struct Seal {
  uint64_t sequence = 0;
  std::optional<uint32_t> segments;  // CRC-32C of all segments' bytes, one after the other; none: not covered
  bool in_chunks = false;            // the message's segments follow in frames of their own (TensorChunk)
};

uint32_t SegmentsChecksum(const std::vector<FrameSegment>& segments);

// Appends the seal to a header.
void AppendSeal(std::string& header, const Seal& seal);

// The seal of a header that came; the message is all but its last kSealBytes. kDataLoss when the header is too short,
// its checksum is another or a flag is unknown.
Result<Seal> ReadSeal(std::string_view header);

}  // namespace gradferry
