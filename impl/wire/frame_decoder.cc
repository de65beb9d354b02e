// Decoding of frames; see frame.h. Large parts arrive in their tensors' own memory. Several small ones arrive together
// and are copied into memory of their own, rather than viewed where they arrived: a tensor that is kept (eight bytes of
// a loss, for ever, out of a block of megabytes) then keeps nothing but itself alive, and its storage can be resized
// like any other. The price is small: of the time to decode 10,000 tensors of 1 KiB, the copies are an eighth, and a
// view needs a storage object and a deleter in place of the allocation.
#include <cstring>
#include <memory>
#include <utility>

#include "impl/wire/decoder.h"
#include "impl/wire/frame.h"
#include "impl/wire/layout.h"

namespace gradferry {
namespace {

Status WrongSegments(const char* message, const std::string& text) {
  return Status(Code::kDataLoss, StrCat(message, ": ", text));
}

// Header and segments within the limit, without overflow, before anything else looks at either.
Status CheckTotal(std::string_view header, const std::vector<uint64_t>& lengths, uint64_t most) {
  bool fits = header.size() <= most;
  uint64_t left = fits ? most - header.size() : 0;
  for (const uint64_t length : lengths) {
    fits = fits && length <= left;
    if (!fits) break;
    left -= length;
  }
  if (fits) return OkStatus();
  return Status(Code::kResourceExhausted,
                StrCat("frame: header and segments together are larger than limits.message_bytes (", most, ")"));
}

// The lengths of the segments that the tensors ask for.
std::vector<uint64_t> SegmentLengths(const SegmentLayout& layout) {
  std::vector<uint64_t> lengths;
  lengths.reserve(layout.large().size() + 1);
  if (layout.inline_parts() > 0) lengths.push_back(layout.inline_bytes());
  lengths.insert(lengths.end(), layout.large().begin(), layout.large().end());
  return lengths;
}

// The segments are exactly those.
Status CheckSegments(const char* message, const SegmentLayout& layout, const std::vector<uint64_t>& lengths) {
  const std::vector<uint64_t> expected = SegmentLengths(layout);
  if (lengths.size() != expected.size()) {
    return WrongSegments(message, StrCat(lengths.size(), " segments came, the tensors need ", expected.size()));
  }
  for (size_t i = 0; i < expected.size(); ++i) {
    if (lengths[i] == expected[i]) continue;
    return WrongSegments(message, StrCat("segment ", i, " has ", lengths[i], " bytes, the tensors need ", expected[i]));
  }
  return OkStatus();
}

bool AllZero(const char* bytes, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) {
    if (bytes[i] != 0) return false;
  }
  return true;
}

class Decoding : public FrameDecoder {
 public:
  explicit Decoding(Message message) : message_(std::move(message)) {}

  // Memory for everything, now that the peer has a right to it.
  Status Allocate(std::vector<TensorDescription> tensors, const SegmentLayout& layout) {
    unpackers_.reserve(tensors.size());
    requires_grad_.reserve(tensors.size());
    for (TensorDescription& tensor : tensors) {
      requires_grad_.push_back(tensor.requires_grad);
      GF_ASSIGN_OR_RETURN(Unpacker unpacker, Unpacker::New(std::move(tensor)));
      unpackers_.push_back(std::move(unpacker));
    }
    inline_bytes_ = layout.inline_bytes();
    // As the sender, who does not copy a part that is alone.
    if (layout.inline_parts() > 1) inline_segment_.reset(new char[inline_bytes_]);
    PlaceSegments();
    return OkStatus();
  }

  const std::vector<FrameSegment>& segments() const override { return segments_; }

  Result<DecodedMessage> Finish() override {
    try {
      if (inline_segment_ != nullptr) GF_RETURN_IF_ERROR(Distribute());
      std::vector<at::Tensor*> places = MessageTensors(message_);
      for (size_t i = 0; i < places.size(); ++i) {
        auto tensor = std::move(unpackers_[i]).Finish();
        if (!tensor.ok()) {
          return WrongSegments(name(), StrCat("tensor ", i, ": ", tensor.status().message()));
        }
        *places[i] = *std::move(tensor);
      }
      return DecodedMessage{std::move(message_), std::move(requires_grad_), std::nullopt, std::move(held)};
    } catch (...) {
      return StatusFromCurrentException().WithOperation(name());
    }
  }

 private:
  const char* name() const { return MessageName(message_); }

  void PlaceSegments() {
    std::vector<FrameSegment> large;
    FrameSegment small{inline_segment_.get(), inline_bytes_};
    for (Unpacker& unpacker : unpackers_) {
      for (TensorPart& part : unpacker.parts()) {
        if (part.length == 0) continue;
        if (!SegmentLayout::IsInline(part.length)) {
          large.push_back({part.data, part.length});
        } else if (small.data == nullptr) {
          small.data = part.data;
        }
      }
    }
    segments_.reserve(large.size() + 1);
    if (small.length != 0) segments_.push_back(small);
    segments_.insert(segments_.end(), large.begin(), large.end());
  }

  // The inline segment's parts into their tensors.
  Status Distribute() {
    const char* const bytes = inline_segment_.get();
    SegmentLayout layout;
    for (Unpacker& unpacker : unpackers_) {
      for (TensorPart& part : unpacker.parts()) {
        if (part.length == 0 || !SegmentLayout::IsInline(part.length)) continue;
        const uint64_t end = layout.inline_bytes();
        const uint64_t offset = layout.Add(part.length);
        if (!AllZero(bytes + end, offset - end)) {
          return WrongSegments(name(), "bytes between the tensors of the inline segment that are not zero");
        }
        std::memcpy(part.data, bytes + offset, part.length);
      }
    }
    inline_segment_.reset();
    return OkStatus();
  }

  Message message_;
  std::vector<bool> requires_grad_;
  std::vector<Unpacker> unpackers_;
  uint64_t inline_bytes_ = 0;
  std::unique_ptr<char[]> inline_segment_;  // null where the small parts are one or none
  std::vector<FrameSegment> segments_;
};

Result<std::unique_ptr<FrameDecoder>> Allocated(DecodedHeader decoded) {
  auto decoding = std::make_unique<Decoding>(std::move(decoded.message));
  GF_RETURN_IF_ERROR(decoding->Allocate(std::move(decoded.tensors), decoded.layout));
  return std::unique_ptr<FrameDecoder>(std::move(decoding));
}

}  // namespace

Result<std::unique_ptr<FrameDecoder>> FrameDecoder::New(std::string_view header, const std::vector<uint64_t>& lengths,
                                                        const WireLimits& limits) {
  try {
    GF_RETURN_IF_ERROR(CheckTotal(header, lengths, limits.message_bytes));
    GF_ASSIGN_OR_RETURN(DecodedHeader decoded, DecodeHeader(header, limits));
    GF_RETURN_IF_ERROR(CheckSegments(MessageName(decoded.message), decoded.layout, lengths));
    return Allocated(std::move(decoded));
  } catch (...) {
    return StatusFromCurrentException();
  }
}

Result<std::unique_ptr<FrameDecoder>> FrameDecoder::NewInChunks(std::string_view header, const WireLimits& limits) {
  try {
    GF_RETURN_IF_ERROR(CheckTotal(header, {}, limits.message_bytes));
    GF_ASSIGN_OR_RETURN(DecodedHeader decoded, DecodeHeader(header, limits));
    const std::vector<uint64_t> lengths = SegmentLengths(decoded.layout);
    if (lengths.empty())
      return WrongSegments(MessageName(decoded.message), "it has no tensors that could come in chunks");
    GF_RETURN_IF_ERROR(CheckTotal(header, lengths, limits.message_bytes));
    return Allocated(std::move(decoded));
  } catch (...) {
    return StatusFromCurrentException();
  }
}

}  // namespace gradferry
