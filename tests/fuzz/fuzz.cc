// See fuzz.h.
#include "tests/fuzz/fuzz.h"

#include <type_traits>
#include <variant>
#include <vector>

#include "impl/wire/messages.h"

namespace gradferry {
namespace {

void Fill(const std::vector<FrameSegment>& segments, std::string_view bytes) {
  size_t at = 0;
  for (const FrameSegment& segment : segments) {
    auto* const memory = static_cast<char*>(segment.data);
    for (uint64_t i = 0; i < segment.length; ++i) memory[i] = bytes.empty() ? '\0' : bytes[at++ % bytes.size()];
  }
}

// Codes that we do not know are read as another one, and what a later version added to a Hello is skipped.
bool IsRewritten(const Message& message, std::string_view header) {
  const bool later = FrameVersion(header) > kProtocolVersion;
  const Status status = std::visit(
      [](const auto& m) -> Status {
        using M = std::decay_t<decltype(m)>;
        if constexpr (std::is_same_v<M, HelloReply> || std::is_same_v<M, HelloProof> || std::is_same_v<M, Reply> ||
                      std::is_same_v<M, AbortPass> || std::is_same_v<M, Ack>) {
          return m.status;
        } else {
          return OkStatus();
        }
      },
      message);
  for (auto error = status.error(); error != nullptr; error = error->cause) {
    if (error->code == Code::kUnknown) return true;
  }
  return later;
}

// Replies within other messages may have such codes as well.
bool IsWrapped(const Message& message) {
  return std::holds_alternative<RpcWithAutograd>(message) || std::holds_alternative<RpcWithProfiling>(message);
}

// In which order dimensions of size 1 stand side by side says nothing, and is written in one way. Then what is written
// now is not longer than it was, and stays as it is.
void RequireTheSameAfterwards(const EncodedFrame& written, std::string_view header) {
  Require(written.header.size() <= header.size(), "what was understood is written in another way");
  std::vector<uint64_t> lengths;
  for (const FrameSegment& segment : written.segments) lengths.push_back(segment.length);
  auto decoder = FrameDecoder::New(written.header, lengths, FuzzLimits());
  Require(decoder.ok(), "what was written is not understood");
  Fill((*decoder)->segments(), "");
  auto decoded = (*decoder)->Finish();
  Require(decoded.ok(), "what was written is not understood");
  auto again = EncodeFrame(decoded->message, decoded->requires_grad, FuzzLimits());
  Require(again.ok(), "what was written cannot be written again");
  SetFrameVersion(again->header, FrameVersion(header));
  Require(again->header == written.header, "what was written is written in another way again");
}

}  // namespace

void DecodeWhole(std::string_view header, const std::vector<uint64_t>& lengths, std::string_view bytes) {
  auto decoder = FrameDecoder::New(header, lengths, FuzzLimits());
  if (!decoder.ok()) return;
  Fill((*decoder)->segments(), bytes);
  auto decoded = (*decoder)->Finish();
  if (!decoded.ok()) return;
  auto again = EncodeFrame(decoded->message, decoded->requires_grad, FuzzLimits());
  Require(again.ok(), "what was understood cannot be written");
  if (IsRewritten(decoded->message, header) || IsWrapped(decoded->message)) return;
  SetFrameVersion(again->header, FrameVersion(header));
  if (again->header != header) RequireTheSameAfterwards(*again, header);
}

}  // namespace gradferry
