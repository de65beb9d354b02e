// What comes to a thrift transport's socket: frames, and messages of stock clients. u8: into how large pieces the
// network cuts the bytes, and with bit 6 the client has said hello already; then the bytes. What the gateway makes of a
// client's message is a frame that a worker takes: it answers all else itself.
#include <algorithm>
#include <memory>

#include "impl/wire/messages.h"
#include "impl/wire/seal.h"
#include "plugins/thrift/frame_reader.h"
#include "plugins/thrift/gateway.h"
#include "tests/fuzz/fuzz.h"

using namespace gradferry::thrift;

namespace {

constexpr uint64_t kMost = 1 << 20;

// A client's hello has been answered.
void Introduce(Gateway& gateway) {
  static const std::string header = [] {
    gradferry::HelloReply reply;
    reply.protocol = 2;
    reply.name = "server";
    std::string text = gradferry::EncodeFrame(reply, {}, {})->header;
    gradferry::AppendSeal(text, {0, std::nullopt});
    return text;
  }();
  gf_transport_frame frame{};
  frame.struct_size = sizeof(frame);
  frame.header = header.data();
  frame.header_length = header.size();
  Gateway::Outcome outcome;
  gradferry::Require(gateway.Give(frame, &outcome).ok(), "a HelloReply is not understood");
}

void RequireThatAWorkerTakes(const Gateway::Outcome& outcome) {
  if (outcome.header.empty()) return;
  const std::string_view header(outcome.header);
  gradferry::Require(gradferry::ReadSeal(header).ok(), "a frame of the gateway has no seal");
  std::vector<uint64_t> lengths;
  for (const std::string_view segment : outcome.tensors.Segments()) lengths.push_back(segment.size());
  const auto decoder =
      gradferry::FrameDecoder::New(header.substr(0, header.size() - gradferry::kSealBytes), lengths, {});
  gradferry::Require(decoder.ok(), decoder.ok() ? "" : decoder.status().ToString().c_str());
}

class Host final : public FrameReader::Sink {
 public:
  explicit Host(bool introduced) {
    if (introduced) Introduce(gateway_);
  }
  Status OnDescriptor(const gf_transport_frame& frame, gf_transport_segment* segments) override {
    gradferry::Require(frame.header_length <= kMaxHeader, "a header is longer than the transport takes");
    uint64_t total = 0;
    for (uint32_t i = 0; i < frame.segment_count; ++i) {
      if (frame.segments[i].length > kMost - total) return {GF_RESOURCE_EXHAUSTED, "too much"};
      total += frame.segments[i].length;
    }
    memory_ = std::make_unique<char[]>(total + 1);
    uint64_t at = 0;
    for (uint32_t i = 0; i < frame.segment_count; ++i) {
      segments[i].data = memory_.get() + at;
      at += frame.segments[i].length;
    }
    return {};
  }
  void OnWholeFrame(uint64_t) override { memory_.reset(); }
  uint64_t MaxMessage() override { return kMost; }
  Status OnMessage(std::string_view message) override {
    Gateway::Outcome outcome;
    const Status status = gateway_.Take(message, &outcome);
    if (status.ok()) RequireThatAWorkerTakes(outcome);
    return status;
  }

 private:
  std::unique_ptr<char[]> memory_;
  Gateway gateway_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t piece = 1 + data[0] % 64 * 16;
  std::string_view rest = gradferry::AsText(data + 1, size - 1);
  Host host((data[0] & 0x40) != 0);
  FrameReader reader(&host);
  while (!rest.empty()) {
    iovec pieces[FrameReader::kMaxPieces];
    const size_t count = reader.Want(pieces);
    gradferry::Require(count >= 1 && count <= FrameReader::kMaxPieces, "a number of pieces that is none");
    size_t took = 0;
    const size_t most = std::min(piece, rest.size());
    for (size_t i = 0; i < count && took < most; ++i) {
      const size_t part = std::min(pieces[i].iov_len, most - took);
      std::memcpy(pieces[i].iov_base, rest.data() + took, part);
      took += part;
    }
    gradferry::Require(took > 0, "no room is asked for");
    rest.remove_prefix(took);
    if (!reader.Took(took).ok()) break;
  }
  return 0;
}
