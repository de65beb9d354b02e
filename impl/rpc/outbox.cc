// See outbox.h.
#include "impl/rpc/outbox.h"

#include <algorithm>
#include <numeric>
#include <thread>
#include <utility>

#include "impl/base/log.h"
#include "impl/wire/seal.h"

namespace gradferry {
namespace {

// A chunk goes in so many pieces: the transport has one that is being sent, and the next one, so that it never waits
// for us.
constexpr uint64_t kPieces = 2;
// While other frames go by the same connection, pieces are so many times smaller, for so many pieces after each.
constexpr uint64_t kSmaller = 16;
constexpr int kSmallerPieces = 32;

// Where neither the configuration nor the transport says anything.
constexpr uint64_t kUsualChunk = 1 << 20;

uint64_t BytesOf(const std::vector<FrameSegment>& segments) {
  return std::accumulate(segments.begin(), segments.end(), uint64_t{0},
                         [](uint64_t sum, const FrameSegment& segment) { return sum + segment.length; });
}

OutFrame ToOutFrame(EncodedFrame frame) {
  OutFrame out;
  out.header = std::move(frame.header);
  out.segments.reserve(frame.segments.size());
  for (const FrameSegment& segment : frame.segments) out.segments.push_back({segment.data, segment.length});
  out.owner = std::move(frame.owner);
  return out;
}

Status Ended() { return Status(Code::kPeerLost, "the connection has ended"); }

}  // namespace

Outbox::Outbox(const WireLimits* limits, RpcMetrics* metrics, std::shared_ptr<Silence> silence, uint64_t chunk_bytes)
    : limits_(limits), metrics_(metrics), silence_(std::move(silence)), chunk_bytes_(chunk_bytes) {}

void Outbox::SetConnection(std::shared_ptr<Connection> connection) {
  std::lock_guard lock(mutex_);
  if (chunk_bytes_ == 0) chunk_bytes_ = connection->chunk();
  if (chunk_bytes_ == 0) chunk_bytes_ = kUsualChunk;
  connection_ = std::move(connection);
}

void Outbox::SetVersion(uint16_t version, bool peer_takes_chunks) {
  std::lock_guard lock(mutex_);
  version_ = version;
  peer_takes_chunks_ = peer_takes_chunks;
}

// ---- From links ----------------------------------------------------------------------------------------------------

Status Outbox::Send(EncodedFrame frame, uint64_t tag) {
  const uint64_t bytes = BytesOf(frame.segments);
  const bool direct = IsDirect(bytes);
  Seal seal;
  if (direct && limits_->checksum_segments) seal.segments = SegmentsChecksum(frame.segments);
  Released released;
  {
    std::lock_guard lock(mutex_);
    if (!connection_) return Ended();
    if (direct) {
      if (in_window_ > 0) smaller_pieces_ = kSmallerPieces;
      return SendNow(std::move(frame), seal, released);
    }
    auto waiting = std::make_unique<Waiting>();
    Queue& queue = queues_[IsPropagateGradients(frame.header) ? 0 : 1];
    waiting->frame = std::move(frame);
    waiting->tag = tag;
    waiting->in_chunks = bytes > PieceBytes() && peer_takes_chunks_;
    queue.push_back(std::move(waiting));
  }
  Pump();
  return OkStatus();
}

void Outbox::SendLast(EncodedFrame frame) {
  {
    std::lock_guard lock(mutex_);
    last_.push_back(std::move(frame));
  }
  Pump();
}

bool Outbox::GiveUp(uint64_t tag) {
  std::unique_ptr<Waiting> found;
  Released released;
  Status status;
  std::lock_guard lock(mutex_);
  for (Queue& queue : queues_) {
    const auto it = std::find_if(queue.begin(), queue.end(), [tag](const auto& entry) { return entry->tag == tag; });
    if (it == queue.end()) continue;
    found = std::move(*it);
    queue.erase(it);
    break;
  }
  if (!found) return false;
  Add(metrics_->transfers_given_up);
  if (!found->announced) return true;
  auto frame = EncodeFrame(TransferGivenUp{found->transfer}, {}, *limits_);
  status = frame.ok() ? SendNow(std::move(*frame), {}, released) : frame.status();
  if (!status.ok()) Break(std::move(status));
  return true;
}

Status Outbox::Close() {
  std::array<Queue, 2> dropped;
  std::lock_guard lock(mutex_);
  connection_ = nullptr;
  dropped.swap(queues_);
  last_.clear();
  return broken_;
}

// ---- To the transport ----------------------------------------------------------------------------------------------

void Outbox::OnTaken(uint64_t bytes) {
  {
    std::lock_guard lock(mutex_);
    in_window_ -= bytes;
  }
  Pump();
}

void Outbox::Pump() {
  Released released;
  std::unique_ptr<Waiting> done;
  std::unique_lock lock(mutex_);
  if (pumping_) return;  // whoever does looks again, and may be on our own stack
  pumping_ = true;
  while (connection_ && broken_.ok() && in_window_ < kPieces * PieceBytes()) {
    Queue* const queue = NextQueue();
    if (queue == nullptr) break;
    Status status;
    try {
      status = SendPiece(*queue, released, done);
    } catch (...) {
      status = StatusFromCurrentException();
    }
    if (!status.ok()) Break(std::move(status));
    const bool hurry = smaller_pieces_ > 0;
    lock.unlock();
    released.clear();
    done.reset();
    // Whoever waits for an answer meanwhile runs first: copying never sleeps, and would have its whole slice of time.
    if (hurry) std::this_thread::yield();
    lock.lock();
  }
  pumping_ = false;
  if (!connection_ || queues_[0].size() + queues_[1].size() > 0) return;
  for (EncodedFrame& frame : std::exchange(last_, {})) (void)SendNow(std::move(frame), {}, released);
}

uint64_t Outbox::PieceBytes() const {
  return std::max<uint64_t>(chunk_bytes_ / (smaller_pieces_ > 0 ? kPieces * kSmaller : kPieces), 1);
}

Outbox::Queue* Outbox::NextQueue() {
  turn_ = 1 - turn_;
  if (queues_[turn_].empty()) turn_ = 1 - turn_;
  return queues_[turn_].empty() ? nullptr : &queues_[turn_];
}

Status Outbox::SendPiece(Queue& queue, Released& released, std::unique_ptr<Waiting>& done) {
  done = std::move(queue.front());
  queue.pop_front();
  Waiting& waiting = *done;
  const auto send = [&](EncodedFrame piece) {
    Seal seal;
    if (limits_->checksum_segments) seal.segments = SegmentsChecksum(piece.segments);
    piece.owner = Watched(BytesOf(piece.segments), std::move(piece.owner));
    return SendNow(std::move(piece), seal, released);
  };
  EncodedFrame& frame = waiting.frame;
  if (!waiting.in_chunks) return send(std::move(frame));
  if (!std::exchange(waiting.announced, true)) {
    waiting.transfer = next_number_;
    GF_RETURN_IF_ERROR(SendNow({std::move(frame.header), {}, nullptr}, {0, std::nullopt, true}, released));
    Add(metrics_->transfers_sent);
  }
  GF_ASSIGN_OR_RETURN(EncodedFrame chunk, EncodeFrame(TensorChunk{waiting.transfer}, {}, *limits_));
  chunk.segments = NextSlices(waiting, PieceBytes());
  if (smaller_pieces_ > 0) --smaller_pieces_;
  chunk.owner = frame.owner;
  GF_RETURN_IF_ERROR(send(std::move(chunk)));
  if (waiting.segment < frame.segments.size()) queue.push_back(std::move(done));
  return OkStatus();
}

std::vector<FrameSegment> Outbox::NextSlices(Waiting& waiting, uint64_t most) {
  std::vector<FrameSegment> slices;
  const auto& segments = waiting.frame.segments;
  for (uint64_t left = most; left > 0 && waiting.segment < segments.size();) {
    const FrameSegment& segment = segments[waiting.segment];
    const uint64_t length = std::min(left, segment.length - waiting.offset);
    slices.push_back({static_cast<char*>(segment.data) + waiting.offset, length});
    left -= length;
    waiting.offset += length;
    if (waiting.offset < segment.length) break;
    ++waiting.segment;
    waiting.offset = 0;
  }
  return slices;
}

Status Outbox::SendNow(EncodedFrame frame, Seal seal, Released& released) {
  if (!connection_) return Ended();
  if (version_ != 0) SetFrameVersion(frame.header, version_);
  seal.sequence = next_number_;
  AppendSeal(frame.header, seal);
  const uint64_t bytes = frame.header.size() + BytesOf(frame.segments);
  released.push_back(frame.owner);  // so that nothing of it is freed under the lock when sending fails
  GF_RETURN_IF_ERROR(connection_->Send(ToOutFrame(std::move(frame))));
  ++next_number_;
  Add(metrics_->frames_sent);
  Add(metrics_->bytes_sent, bytes);
  if (PeerMetrics* peer = peer_metrics_.load(std::memory_order_acquire)) {
    Add(peer->frames_sent);
    Add(peer->bytes_sent, bytes);
  }
  return OkStatus();
}

std::shared_ptr<void> Outbox::Watched(uint64_t bytes, std::shared_ptr<void> owner) {
  const auto delta = static_cast<int64_t>(bytes);
  silence_->Sending(+delta);
  in_window_ += bytes;
  auto taken = [weak = weak_from_this(), silence = silence_, bytes, delta, owner = std::move(owner)](void*) mutable {
    silence->Sending(-delta);
    owner = nullptr;
    if (const auto self = weak.lock()) self->OnTaken(bytes);
  };
  return std::shared_ptr<void>(nullptr, std::move(taken));
}

// The connection is closed by whoever waits for on_closed, so this only makes it end.
void Outbox::Break(Status why) {
  if (!broken_.ok()) return;
  broken_ = std::move(why);
  Log(LogLevel::kInfo, "a message could not be sent in full: ", broken_.ToString());
  if (connection_) connection_->Close();
}

}  // namespace gradferry
