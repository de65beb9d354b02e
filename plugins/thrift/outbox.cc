#include "plugins/thrift/outbox.h"

#include <algorithm>
#include <array>
#include <utility>

namespace gradferry::thrift {
namespace {

// Pieces in one call of the system: several frames that wait go out together.
constexpr size_t kPiecesAtOnce = 64;

}  // namespace

IoResult Outbox::Write(Stream* stream, const gf_transport_frame& frame, void* op) {
  // Room for both before anything is on the wire.
  sent_.reserve(sent_.size() + 1);
  OutFrame out(frame);
  IoResult result;
  size_t written = 0;
  while (!out.done()) {
    result = stream->Write(out.pieces(), out.piece_count());
    if (result.what != IoResult::What::kBytes) break;
    out.Advance(result.bytes);
    written += result.bytes;
    if (result.drained) result.what = IoResult::What::kWouldBlock;
    if (result.drained) break;
  }
  if (out.done()) {
    Complete(op, out.total());
    return result;
  }
  Add(frame, op);
  waiting_.back().frame->Advance(written);
  return result;
}

void Outbox::Add(const gf_transport_frame& frame, void* op) {
  waiting_.push_back({std::make_unique<OutFrame>(frame), op, true});
}

void Outbox::Add(std::string bytes) {
  waiting_.push_back({std::make_unique<OutFrame>(std::move(bytes)), nullptr, false});
}

IoResult Outbox::Flush(Stream* stream) {
  IoResult result = stream->Push();
  if (result.what != IoResult::What::kBytes) return result;
  std::array<iovec, kPiecesAtOnce> pieces;
  while (!waiting_.empty()) {
    size_t count = 0;
    for (const Waiting& waiting : waiting_) {
      const size_t some = std::min(waiting.frame->piece_count(), kPiecesAtOnce - count);
      std::copy_n(waiting.frame->pieces(), some, pieces.data() + count);
      count += some;
      if (count == kPiecesAtOnce) break;
    }
    result = stream->Write(pieces.data(), count);
    if (result.what != IoResult::What::kBytes) return result;
    for (size_t left = result.bytes; left > 0;) {
      OutFrame* frame = waiting_.front().frame.get();
      size_t rest = 0;
      for (size_t i = 0; i < frame->piece_count(); ++i) rest += frame->pieces()[i].iov_len;
      const size_t step = std::min(left, rest);
      frame->Advance(step);
      left -= step;
      if (!frame->done()) break;
      if (waiting_.front().reported) Complete(waiting_.front().op, frame->total());
      waiting_.pop_front();
    }
    if (result.drained) result.what = IoResult::What::kWouldBlock;
    if (result.drained) return result;
  }
  return result;
}

void Outbox::Complete(void* op, uint64_t bytes) {
  sent_.push_back({op, bytes});
  sent_bytes_ += bytes;
}

void Outbox::TakeSent(std::vector<Sent>* out) {
  out->swap(sent_);
  sent_bytes_ = 0;
}

std::vector<void*> Outbox::TakeWaiting() {
  std::vector<void*> ops;
  for (const Waiting& waiting : waiting_) {
    if (waiting.reported) ops.push_back(waiting.op);
  }
  waiting_.clear();
  return ops;
}

}  // namespace gradferry::thrift
