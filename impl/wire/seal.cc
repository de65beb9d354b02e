// See seal.h.
#include "impl/wire/seal.h"

#include "impl/base/crc32c.h"
#include "impl/wire/codec.h"

namespace gradferry {
namespace {

constexpr uint8_t kCoversSegments = 1;
constexpr uint8_t kInChunks = 2;
constexpr size_t kChecksumBytes = 4;

Status Damaged(const std::string& why) { return Status(Code::kDataLoss, "frame.seal: " + why); }

}  // namespace

uint32_t SegmentsChecksum(const std::vector<FrameSegment>& segments) {
  uint32_t checksum = 0;
  for (const FrameSegment& segment : segments) checksum = ExtendCrc32c(checksum, segment.data, segment.length);
  return checksum;
}

void AppendSeal(std::string& header, const Seal& seal) {
  const auto append = [&header](auto value) { header.append(reinterpret_cast<const char*>(&value), sizeof value); };
  append(seal.sequence);
  append(static_cast<uint8_t>((seal.segments ? kCoversSegments : 0) | (seal.in_chunks ? kInChunks : 0)));
  append(seal.segments.value_or(0));
  append(Crc32c(header));
}

Result<Seal> ReadSeal(std::string_view header) {
  if (header.size() < kSealBytes) return Damaged(StrCat("a header of ", header.size(), " bytes has none"));
  Reader in(header.substr(header.size() - kSealBytes));
  Seal seal;
  uint8_t flags = 0;
  uint32_t segments = 0, expected = 0;
  in.Number(&seal.sequence);
  in.Number(&flags);
  in.Number(&segments);
  in.Number(&expected);
  const uint32_t actual = Crc32c(header.substr(0, header.size() - kChecksumBytes));
  if (actual != expected) {
    return Damaged(StrCat("the header's checksum is ", actual, ", its sender computed ", expected));
  }
  if (flags > kInChunks) return Damaged(StrCat("unknown flags ", int{flags}));
  seal.in_chunks = flags == kInChunks;
  if (flags == kCoversSegments) {
    seal.segments = segments;
  } else if (segments != 0) {
    return Damaged("a checksum of segments that are not covered");
  }
  return seal;
}

}  // namespace gradferry
