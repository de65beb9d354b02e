// See connection.h.
#include "plugins/sim/connection.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <new>
#include <utility>

#include "plugins/sim/errors.h"
#include "plugins/sim/network.h"
#include "plugins/sim/transport.h"

namespace gradferry::sim {
namespace {

LinkId Reverse(LinkId id) {
  id.to_listener = !id.to_listener;
  return id;
}

int32_t CheckFrame(const gf_transport_frame* frame, gf_transport_error* error) {
  if (frame == nullptr || frame->struct_size < sizeof(*frame)) {
    return Fail(error, GF_INVALID_ARGUMENT, "the frame's struct_size is too small");
  }
  if (frame->header == nullptr || frame->header_length == 0 || frame->header_length > kMaxHeader) {
    return Fail(error, frame->header_length > kMaxHeader ? GF_OUT_OF_RANGE : GF_INVALID_ARGUMENT,
                "the frame's header has " + std::to_string(frame->header_length) + " bytes; 1 to " +
                    std::to_string(kMaxHeader) + " are possible");
  }
  if (frame->segments == nullptr && frame->segment_count != 0) {
    return Fail(error, GF_INVALID_ARGUMENT, "the frame's segments are missing");
  }
  for (uint32_t i = 0; i < frame->segment_count; ++i) {
    if (frame->segments[i].data != nullptr || frame->segments[i].length == 0) continue;
    return Fail(error, GF_INVALID_ARGUMENT, "segment " + std::to_string(i) + " has a length but no memory");
  }
  return GF_OK;
}

uint64_t SegmentBytes(const Frame& frame) {
  uint64_t bytes = 0;
  for (const gf_transport_segment& segment : frame.segments) bytes += segment.length;
  return bytes;
}

// Makes the frame independent of its sender's memory. False when there is no memory for it.
bool KeepCopy(Frame& frame) {
  const uint64_t size = frame.view.header_length + SegmentBytes(frame);
  frame.copy.reset(new (std::nothrow) char[size]);
  if (!frame.copy) return false;
  char* at = frame.copy.get();
  std::memcpy(at, frame.view.header, frame.view.header_length);
  frame.view.header = at;
  at += frame.view.header_length;
  for (gf_transport_segment& segment : frame.segments) {
    if (segment.length != 0) std::memcpy(at, segment.data, segment.length);
    segment.data = at;
    at += segment.length;
  }
  return true;
}

// The frame as its fate leaves it; missing: bytes of its segments that never come. False when there is no memory.
bool Damage(const Frame& frame, Frame* damaged, uint64_t* missing) {
  damaged->view = frame.view;
  damaged->segments = frame.segments;
  if (!KeepCopy(*damaged)) return false;
  if (const auto bit = frame.fate.flip) damaged->copy[*bit / 8] ^= static_cast<char>(1 << (*bit % 8));
  if (const auto keep = frame.fate.keep) {
    if (*keep < frame.view.header_length) {
      damaged->view.header_length = *keep;
      damaged->segments.clear();
    } else {
      *missing = frame.view.header_length + SegmentBytes(frame) - *keep;
    }
  }
  damaged->view.segments = damaged->segments.data();
  damaged->view.segment_count = static_cast<uint32_t>(damaged->segments.size());
  return true;
}

gf_transport_conn* Handle(Connection* connection) { return reinterpret_cast<gf_transport_conn*>(connection); }

}  // namespace

Connection::Connection(Transport* transport, void* token, const LinkId& id)
    : network_(transport->network()),
      transport_(transport),
      token_(token),
      id_(id),
      out_(std::make_shared<Pipe>(&transport->SenderLocked(), id)) {}

Connection::Connection(Transport* transport, const Connection& dialler)
    : network_(transport->network()),
      transport_(transport),
      id_(Reverse(dialler.id_)),
      out_(std::make_shared<Pipe>(&transport->SenderLocked(), id_)),
      in_(dialler.out_) {}

// ---- Calls ----

EventLoop::Key Connection::PostLocked(const Fate& fate, std::function<void()> arrive) {
  const uint64_t due = network_.loop().Now() + fate.delay_ns;
  const EventLoop::Key key = network_.loop().Schedule(std::max(due, out_->last_due), stream(), std::move(arrive));
  out_->last_due = key.at;
  return key;
}

void Connection::DialLocked(uint64_t number) {
  const Fate fate = out_->link.Decide(nullptr, network_.Age());
  if (fate.lost) out_->half_open = true;
  PostLocked(fate, [self = shared_from_this(), number] { self->ArriveAt(number); });
}

int32_t Connection::Send(const gf_transport_frame* frame, void* op, gf_transport_error* error) {
  if (const int32_t code = CheckFrame(frame, error); code != GF_OK) return code;
  const auto sent = std::make_shared<Frame>();
  sent->view = *frame;
  sent->segments.assign(frame->segments, frame->segments + frame->segment_count);
  sent->view.segments = sent->segments.data();
  sent->op = op;
  sent->sender = shared_from_this();

  std::lock_guard lock(network_.mutex());
  if (state_ == State::kClosing) return Fail(error, GF_CLOSED, "the connection is being closed");
  if (state_ == State::kClosed) return Fail(error, GF_PEER_LOST, "the connection has ended");
  const FrameView view{static_cast<const unsigned char*>(frame->header), frame->header_length, SegmentBytes(*sent)};
  sent->fate = out_->link.Decide(&view, network_.Age());
  sent->due = PostLocked(sent->fate, [self = shared_from_this(), sent] { self->Deliver(sent); });
  out_->under_way.push_back(sent);
  ++transport_->CountersLocked().frames_sent;
  transport_->CountersLocked().bytes_sent += sent->view.header_length + SegmentBytes(*sent);
  return GF_OK;
}

void Connection::Close() {
  std::lock_guard lock(network_.mutex());
  CloseLocked();
}

void Connection::CloseLocked() {
  if (state_ != State::kOpen) return;
  state_ = State::kClosing;
  end_code_ = GF_OK;
  network_.loop().Schedule(network_.loop().Now(), stream(), [self = shared_from_this()] { self->EndOurs(); });
}

// ---- Events: the beginning ----

void Connection::ArriveAt(uint64_t number) {
  std::shared_ptr<Connection> accepted;
  Transport* listener;
  {
    std::lock_guard lock(network_.mutex());
    if (out_->half_open) return;
    network_.TraceLocked(stream(), 0, kTraceBegin);
    listener = network_.ListenerLocked(number);
    if (listener != nullptr && listener->DeadLocked()) listener = nullptr;
    if (state_ != State::kClosed && transport_->DeadLocked()) listener = nullptr;
    if (listener != nullptr) {
      accepted = std::make_shared<Connection>(listener, *this);
      listener->AddLocked(accepted);
      out_->receiver = accepted;
      in_ = accepted->out_;
      // Who dialled may have closed since; what it sent before arrives all the same.
      if (state_ != State::kClosed) in_->receiver = shared_from_this();
    }
  }
  if (!accepted) return EndTheirs(GF_UNAVAILABLE, "nobody listens at " + network_.AddressOf(number));
  void* const token = listener->host().on_accept(listener->host().ctx, Handle(accepted.get()));
  if (token != nullptr) {
    accepted->token_ = token;
    return;
  }
  accepted->Discard();
  EndTheirs(GF_UNAVAILABLE, "the listener at " + network_.AddressOf(number) + " refused the connection");
}

// ---- Events: frames ----

void Connection::Deliver(const std::shared_ptr<Frame>& frame) {
  if (frame->fate.reset) return Break("the connection was reset");
  std::shared_ptr<Connection> receiver;
  bool half_open;
  {
    std::lock_guard lock(network_.mutex());
    if (frame->sender) out_->under_way.pop_front();
    const bool arrives = !frame->fate.lost && out_->receiver && out_->receiver->state_ == State::kOpen;
    if (arrives) receiver = out_->receiver;
    half_open = out_->half_open && !frame->fate.lost;
    if (frame->sender && !arrives) ++transport_->CountersLocked().frames_lost;
    if (receiver) CountArrivalLocked(*frame, *receiver);
    if (receiver && frame->fate.again_after_ns) RepeatLocked(*frame);
  }
  if (frame->fate.lost) return TellSent(frame, nullptr);
  if (!receiver) {
    const gf_transport_error error = MakeError(GF_PEER_LOST, "the peer has closed the connection");
    TellSent(frame, &error);
    if (half_open) EndTheirs(GF_PEER_LOST, "the peer knows nothing of this connection");
    return;
  }
  Frame damaged;
  uint64_t missing = 0;
  const bool is_damaged = frame->fate.damaged() && Damage(*frame, &damaged, &missing);
  const int32_t code = receiver->Receive(is_damaged ? damaged : *frame, missing);
  if (code == GF_OK) return TellSent(frame, nullptr);
  const gf_transport_error error = MakeError(GF_PEER_LOST, "the peer refused the frame and closes the connection");
  TellSent(frame, &error);
  receiver->Refuse(code, missing == 0 ? "the host refused a frame" : "a frame was cut short");
}

void Connection::CountArrivalLocked(const Frame& frame, Connection& receiver) {
  network_.TraceLocked(stream(), frame.fate.index, kTraceFrame);
  Counters& counters = receiver.transport_->CountersLocked();
  ++counters.frames_received;
  if (frame.fate.damaged()) ++counters.frames_damaged;
  if (frame.fate.again_after_ns) ++counters.frames_repeated;
}

void Connection::RepeatLocked(const Frame& frame) {
  const auto again = std::make_shared<Frame>();
  again->view = frame.view;
  again->segments = frame.segments;
  again->view.segments = again->segments.data();
  again->fate = frame.fate;
  again->fate.again_after_ns.reset();
  if (!KeepCopy(*again)) return;
  const uint64_t after = *frame.fate.again_after_ns;
  const uint64_t place = after == 0 ? 0 : stream();  // 0: next of all
  network_.loop().Schedule(network_.loop().Now() + after, place,
                           [self = shared_from_this(), again] { self->Deliver(again); });
}

int32_t Connection::Receive(const Frame& frame, uint64_t missing) {
  const gf_transport_host& host = transport_->host();
  std::vector<gf_transport_segment> lengths(frame.segments.size());
  for (size_t i = 0; i < lengths.size(); ++i) lengths[i].length = frame.segments[i].length;
  std::vector<gf_transport_segment> given = lengths;
  gf_transport_frame announced = frame.view;
  announced.segments = lengths.data();
  if (const int32_t code = host.on_descriptor(host.ctx, token_, &announced, given.data()); code != GF_OK) return code;

  uint64_t coming = SegmentBytes(frame) - missing;
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i].length == 0) continue;
    if (given[i].data == nullptr) {
      host.on_frame(host.ctx, token_, GF_INTERNAL);
      return GF_INTERNAL;
    }
    const uint64_t length = std::min(coming, lengths[i].length);
    std::memcpy(given[i].data, frame.segments[i].data, length);
    coming -= length;
  }
  if (missing != 0) {
    host.on_frame(host.ctx, token_, GF_DATA_LOSS);
    return GF_DATA_LOSS;
  }
  host.on_frame(host.ctx, token_, GF_OK);
  return GF_OK;
}

void Connection::Refuse(int32_t code, const std::string& why) {
  {
    std::lock_guard lock(network_.mutex());
    if (state_ == State::kOpen) {
      state_ = State::kClosing;
      end_code_ = code;
      end_text_ = why;
    }
  }
  EndOurs();
}

// ---- Events: the end ----

void Connection::EndOurs() {
  std::vector<std::shared_ptr<Frame>> frames;
  {
    std::lock_guard lock(network_.mutex());
    if (state_ == State::kClosed) return;
    frames.assign(out_->under_way.begin(), out_->under_way.end());
  }
  // Without the lock: no frame is added while this end is closing, and only this thread takes one away.
  size_t kept = 0;
  while (kept < frames.size() && KeepCopy(*frames[kept])) ++kept;
  {
    std::lock_guard lock(network_.mutex());
    for (size_t i = kept; i < frames.size(); ++i) network_.loop().Cancel(frames[i]->due);
    transport_->CountersLocked().frames_lost += frames.size() - kept;
    out_->under_way.clear();
    LeaveLocked();
    // A peer that has ended already needs no word; one that is still being dialled does.
    if (out_->receiver || !in_) PostEndLocked();
  }
  const gf_transport_error error = MakeError(GF_RESOURCE_EXHAUSTED, "no memory for a frame under way at the close");
  for (size_t i = 0; i < frames.size(); ++i) TellSent(frames[i], i < kept ? nullptr : &error);
  TellClosed();
}

void Connection::PostEndLocked() {
  const Fate fate = out_->link.Decide(nullptr, network_.Age());
  if (fate.lost) {
    if (in_) in_->half_open = true;
    return;
  }
  PostLocked(fate, [pipe = out_] {
    // Only this thread takes the receiver away.
    if (const auto receiver = pipe->receiver) receiver->EndTheirs(GF_PEER_LOST, "the peer has closed the connection");
  });
}

void Connection::EndTheirs(int32_t code, const std::string& why) {
  std::vector<std::shared_ptr<Frame>> lost;
  {
    std::lock_guard lock(network_.mutex());
    if (state_ == State::kOpen) {
      end_code_ = code;
      end_text_ = why;
    }
    if (!LeaveLocked()) return;
    lost = TakeUnderWayLocked();
    transport_->CountersLocked().frames_lost += lost.size();
  }
  const gf_transport_error error = MakeError(code, why);
  for (const auto& frame : lost) TellSent(frame, &error);
  TellClosed();
}

void Connection::Break(const std::string& why) {
  std::shared_ptr<Connection> other;
  {
    std::lock_guard lock(network_.mutex());
    other = out_->receiver;
    if (!in_) out_->half_open = true;  // it will not be accepted
  }
  EndTheirs(GF_PEER_LOST, why);
  if (other) other->EndTheirs(GF_PEER_LOST, why);
}

void Connection::Discard() {
  std::lock_guard lock(network_.mutex());
  if (LeaveLocked()) TakeUnderWayLocked();
}

bool Connection::LeaveLocked() {
  if (state_ == State::kClosed) return false;
  state_ = State::kClosed;
  if (in_) in_->receiver.reset();
  network_.TraceLocked(stream(), 0, kTraceEnd);
  transport_->RemoveLocked(shared_from_this());
  return true;
}

std::vector<std::shared_ptr<Frame>> Connection::TakeUnderWayLocked() {
  std::vector<std::shared_ptr<Frame>> frames(out_->under_way.begin(), out_->under_way.end());
  out_->under_way.clear();
  for (const auto& frame : frames) network_.loop().Cancel(frame->due);
  return frames;
}

void Connection::TellSent(const std::shared_ptr<Frame>& frame, const gf_transport_error* error) {
  if (!frame->sender) return;
  frame->sender.reset();
  transport_->host().on_sent(transport_->host().ctx, token_, frame->op, error);
}

void Connection::TellClosed() {
  const gf_transport_error error = MakeError(end_code_, end_text_);
  transport_->host().on_closed(transport_->host().ctx, token_, end_code_ == GF_OK ? nullptr : &error);
}

}  // namespace gradferry::sim
