// See incoming_transfers.h.
#include "impl/rpc/incoming_transfers.h"

#include <utility>

namespace gradferry {
namespace {

Status NotUnderWay(uint64_t transfer) {
  return Status(Code::kDataLoss,
                StrCat("TensorChunk.transfer: nothing was announced by frame ", transfer, ", or it is complete"));
}

}  // namespace

void IncomingTransfers::Begin(uint64_t transfer, std::unique_ptr<FrameDecoder> decoder) {
  transfers_[transfer].decoder = std::move(decoder);
}

Status IncomingTransfers::Place(uint64_t transfer, std::vector<Segment>& segments) {
  const auto it = transfers_.find(transfer);
  if (it == transfers_.end()) return NotUnderWay(transfer);
  const std::vector<FrameSegment>& targets = it->second.decoder->segments();
  Position at = it->second.there;
  if (segments.empty()) return Status(Code::kDataLoss, "TensorChunk: it brings nothing");
  for (Segment& slice : segments) {
    const uint64_t room = at.segment < targets.size() ? targets[at.segment].length - at.offset : 0;
    if (slice.length == 0 || slice.length > room) {
      return Status(Code::kDataLoss, StrCat("TensorChunk: a slice of ", slice.length, " bytes, where segment ",
                                            at.segment, " of the message needs ", room, " more"));
    }
    slice.data = static_cast<char*>(targets[at.segment].data) + at.offset;
    at.offset += slice.length;
    if (at.offset == targets[at.segment].length) at = {at.segment + 1, 0};
  }
  it->second.placed = at;
  return OkStatus();
}

std::unique_ptr<FrameDecoder> IncomingTransfers::Placed(uint64_t transfer) {
  const auto it = transfers_.find(transfer);
  it->second.there = it->second.placed;
  if (it->second.there.segment < it->second.decoder->segments().size()) return nullptr;
  auto decoder = std::move(it->second.decoder);
  transfers_.erase(it);
  return decoder;
}

Status IncomingTransfers::GiveUp(uint64_t transfer) {
  return transfers_.erase(transfer) > 0 ? OkStatus() : NotUnderWay(transfer);
}

}  // namespace gradferry
