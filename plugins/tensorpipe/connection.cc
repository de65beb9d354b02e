#include "plugins/tensorpipe/connection.h"

#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

namespace gradferry::tp {

namespace pipe = ::tensorpipe;

using std::chrono::steady_clock;

namespace {

// Setting up takes a few round trips; all the rest is for a peer that is short of processors.
constexpr std::chrono::seconds kSetUpLimit{10};
constexpr std::chrono::milliseconds kLinger{200};

}  // namespace

Connection::Connection(Shared* shared, std::shared_ptr<pipe::Pipe> pipe, Origin origin, std::string peer,
                       std::string address, Ended ended)
    : shared_(shared),
      pipe_(std::move(pipe)),
      origin_(origin),
      peer_(std::move(peer)),
      ended_(std::move(ended)),
      address_(std::move(address)),
      record_(origin == Origin::kDialled ? gradferry::tp::End::kDialling : gradferry::tp::End::kListening, address_),
      why_not_(shared->cma ? "it has not been tried yet" : "transport.tensorpipe.channels has no cma") {}

void Connection::Start(void* token) {
  token_ = token;
  if (origin_ == Origin::kAccepted) SendWelcome();
  if (shared_->cma) Offer();
  ReadNext();
}

void Connection::Discard() {
  discarded_ = true;
  Close();
  EndOperation();
}

void Connection::Close() {
  if (!SetEnd({GF_OK, ""})) return;
  if (origin_ == Origin::kAccepted || stands_) return pipe_->close();
  shared_->events.PostAt(steady_clock::now() + kLinger, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->pipe_->close();
  });
}

void Connection::SendWelcome() {
  ++operations_;
  pipe_->write(WelcomeMessage(), [self = shared_from_this()](const pipe::Error& error) {
    if (error) {
      self->SetEnd(self->Failure(error));
    } else {
      self->OnStands();
    }
    self->shared_->events.Deliver([self] { self->EndOperation(); });
  });
  shared_->events.PostAt(steady_clock::now() + kSetUpLimit, [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (self == nullptr || self->stands_) return;
    if (self->SetEnd({GF_PEER_LOST, self->peer_ + " did not finish connecting"})) self->pipe_->close();
  });
}

// Within a callback of the pipe: something went through.
void Connection::OnStands() {
  if (stands_.exchange(true)) return;
  if (End()) pipe_->close();  // Close has waited for this
}

// ---- Sending -----------------------------------------------------------------------------------------------------

Status Connection::Send(const gf_transport_frame& frame, void* op) {
  Sending sending;
  sending.op = op;
  sending.bytes = TotalBytes(frame.header_length, frame.segments, frame.segment_count);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    sending.number = ++last_number_;
  }
  pipe::Message message;
  const Status status = lends_ ? ToLendingMessage(frame, sending.number, &message, &sending.lent)
                               : ToMessage(frame, shared_->max_segment, &message);
  if (!status.ok()) return status;
  if (!BeginSend(sending)) {
    const std::optional<Status> end = End();
    if (end && !end->ok()) return *end;
    return {GF_CLOSED, "the connection with " + peer_ + " is closed"};
  }
  pipe_->write(std::move(message), [self = shared_from_this(), number = sending.number](const pipe::Error& error) {
    self->OnWritten(error, number);
  });
  return {};
}

// Counts an operation, unless the connection has ended or is about to.
bool Connection::BeginSend(const Sending& sending) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (end_) return false;
  uint32_t count = operations_.load();
  do {
    if (count == 0) return false;
  } while (!operations_.compare_exchange_weak(count, count + 1));
  sends_.push_back(sending);
  return true;
}

void Connection::OnWritten(const pipe::Error& error, uint64_t number) {
  if (error) {
    SetEnd(Failure(error));
    record_.Invalidate();
  } else {
    OnStands();
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (Sending& sending : sends_) {
      if (sending.number != number) continue;
      sending.written = true;
      sending.failed |= static_cast<bool>(error);
      sending.done |= !sending.lent || error;
    }
  }
  CompleteSends();
}

// The receiver has copied what was lent.
void Connection::OnDone(uint64_t number) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (Sending& sending : sends_) sending.done |= sending.number == number && sending.lent;
  }
  CompleteSends();
}

// The host hears of them in the order in which they were sent.
void Connection::CompleteSends() {
  for (;;) {
    Sending sending;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (sends_.empty() || !sends_.front().written || !sends_.front().done) return;
      sending = sends_.front();
      sends_.pop_front();
    }
    Status status;
    if (sending.failed) {
      status = *End();
      if (status.ok()) status = {GF_CLOSED, "the connection with " + peer_ + " was closed before the frame was sent"};
    } else {
      ++shared_->counters.frames_sent;
      shared_->counters.bytes_sent += sending.bytes;
    }
    shared_->events.Deliver([self = shared_from_this(), op = sending.op, status = std::move(status)] {
      self->DeliverSent(op, status);
      self->EndOperation();
    });
  }
}

// No answer comes any more. The end is set.
void Connection::FailLent() {
  record_.Invalidate();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (Sending& sending : sends_) {
      if (!sending.lent || sending.done) continue;
      sending.done = sending.failed = true;
    }
  }
  CompleteSends();
}

// ---- Reading each other's memory ---------------------------------------------------------------------------------

void Connection::Offer() {
  challenge_ = NewChallenge();
  Control offer;
  offer.kind = ControlKind::kOffer;
  offer.pid = getpid();
  offer.location = record_.location();
  offer.challenge = challenge_;
  SendControl(offer);
}

void Connection::SendControl(const Control& control) {
  ++operations_;
  pipe_->write(ToMessage(control), [self = shared_from_this()](const pipe::Error& error) {
    if (error) self->SetEnd(self->Failure(error));
    self->shared_->events.Deliver([self] { self->EndOperation(); });
  });
}

// The host hears nothing of it.
void Connection::TakeControl(const std::string& metadata) {
  Control control;
  if (Status status = ParseControl(metadata, &control); !status.ok()) {
    shared_->events.Deliver([self = shared_from_this(), status] { self->EndReading(status); });
    return;
  }
  pipe_->read(pipe::Allocation(), [self = shared_from_this(), control](const pipe::Error& error) {
    if (!error) {
      self->Handle(control);
      return self->ReadNext();
    }
    self->SetEnd(self->Failure(error));
    self->shared_->events.Deliver([self] { self->LastOfReading(); });
  });
}

void Connection::Handle(const Control& control) {
  Control answer;
  switch (control.kind) {
    case ControlKind::kOffer:
      // A second one would put another process in the place of the one that was tested.
      if (std::exchange(offered_, true)) return Refuse();
      if (shared_->cma) {
        const bool dialled = origin_ == Origin::kDialled;
        reader_ = CmaReader(control.pid, control.location, challenge_,
                            dialled ? gradferry::tp::End::kListening : gradferry::tp::End::kDialling, address_);
        record_.Write(control.challenge);
        answer.kind = ControlKind::kWritten;
      } else {
        answer.kind = ControlKind::kVerdict;
        answer.reason = "the other side's transport.tensorpipe.channels has no cma";
      }
      return SendControl(answer);
    case ControlKind::kWritten:
      if (!offered_ || std::exchange(tested_, true)) return Refuse();
      return TestPeer();
    case ControlKind::kDone:
      return OnDone(control.number);
    case ControlKind::kVerdict:
      break;
  }
  if (control.works && shared_->cma) {
    lends_ = true;
    return;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  why_not_ = control.reason;
}

// The reading ends when the pipe does.
void Connection::Refuse() {
  if (SetEnd({GF_DATA_LOSS, peer_ + " sent a control message out of order"})) pipe_->close();
}

void Connection::TestPeer() {
  const Status status = reader_.Test();
  reads_ = status.ok() && shared_->cma;
  Control verdict;
  verdict.kind = ControlKind::kVerdict;
  verdict.works = reads_;
  verdict.reason = status.text;
  SendControl(verdict);
  if (!status.ok()) {
    shared_->Log(LogLevel::kWarning, "large segments from " + peer_ +
                                         " come over the socket, for its memory cannot be read: " + status.text);
  }
}

std::string Connection::PeerJson() const {
  nlohmann::json json = {{"address", peer_}, {"path", lends_ ? "cma" : shared_->plain_path}};
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!lends_) json["path_reason"] = why_not_;
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// ---- Receiving ---------------------------------------------------------------------------------------------------

// One frame at a time: the host hears the end of one before the next is announced.
void Connection::ReadNext() {
  pipe_->readDescriptor([self = shared_from_this()](const pipe::Error& error, pipe::Descriptor descriptor) {
    self->OnDescriptor(error, std::move(descriptor));
  });
}

void Connection::OnDescriptor(const pipe::Error& error, pipe::Descriptor descriptor) {
  if (error) {
    SetEnd(Failure(error));
    shared_->events.Deliver([self = shared_from_this()] { self->LastOfReading(); });
    return;
  }
  OnStands();
  if (IsWelcome(descriptor)) return SkipWelcome();
  if (IsControl(descriptor)) return TakeControl(descriptor.metadata);
  shared_->events.Deliver(
      [self = shared_from_this(), descriptor = std::move(descriptor)] { self->Announce(descriptor); });
}

// The host hears nothing of it.
void Connection::SkipWelcome() {
  pipe_->read(pipe::Allocation(), [self = shared_from_this()](const pipe::Error& error) {
    if (!error) return self->ReadNext();
    self->SetEnd(self->Failure(error));
    self->shared_->events.Deliver([self] { self->LastOfReading(); });
  });
}

void Connection::Announce(const pipe::Descriptor& descriptor) {
  // The host has no use for memory for a frame that cannot arrive any more.
  if (End()) return LastOfReading();
  Announcement announcement;
  if (Status status = FromDescriptor(descriptor, &announcement); !status.ok()) return EndReading(status);
  if (announcement.lends && !reads_) {
    return EndReading({GF_DATA_LOSS, peer_ + " lends memory that it was not told to lend"});
  }

  gf_transport_frame frame{};
  frame.struct_size = sizeof(frame);
  frame.segment_count = static_cast<uint32_t>(announcement.segments.size());
  frame.header = announcement.header.data();
  frame.header_length = announcement.header.size();
  frame.segments = announcement.segments.data();
  std::vector<gf_transport_segment> filled = announcement.segments;
  const gf_transport_host* host = shared_->host;
  const int32_t code = host->on_descriptor(host->ctx, token_, &frame, filled.data());
  if (code != GF_OK) return EndReading({code, "a frame of " + peer_ + " was refused"});

  pipe::Allocation allocation;
  if (Status status = ToAllocation(announcement, filled, &allocation); !status.ok()) {
    host->on_frame(host->ctx, token_, status.code);
    return EndReading(status);
  }
  const uint64_t bytes = TotalBytes(frame.header_length, frame.segments, frame.segment_count);
  pipe_->read(std::move(allocation),
              [self = shared_from_this(), bytes, number = announcement.number, from = std::move(announcement.addresses),
               to = LentSegments(announcement, filled)](const pipe::Error& error) {
                if (error || to.empty()) return self->OnRead(error, bytes);
                self->shared_->copies->Post([=] { self->Copy(from, to, number, bytes); });
              });
}

// On the thread that copies. The frame's other parts have arrived.
void Connection::Copy(std::vector<uint64_t> from, std::vector<gf_transport_segment> to, uint64_t number,
                      uint64_t bytes) {
  const Status status = reader_.Read(from, to);
  if (!status.ok()) {
    const bool first = SetEnd({GF_PEER_LOST, "memory of " + peer_ + " could not be read: " + status.text});
    shared_->events.Deliver([self = shared_from_this(), first] {
      self->EndFrame(self->End()->ok() ? GF_CLOSED : self->End()->code);
      if (first) self->pipe_->close();
    });
    return;
  }
  Control done;
  done.kind = ControlKind::kDone;
  done.number = number;
  SendControl(done);
  ++shared_->counters.frames_received;
  shared_->counters.bytes_received += bytes;
  shared_->events.Deliver([self = shared_from_this()] { self->EndFrame(GF_OK); });
}

void Connection::OnRead(const pipe::Error& error, uint64_t bytes) {
  int32_t code = GF_OK;
  if (error) {
    SetEnd(Failure(error));
    code = End()->ok() ? GF_CLOSED : End()->code;
  } else {
    ++shared_->counters.frames_received;
    shared_->counters.bytes_received += bytes;
  }
  shared_->events.Deliver([self = shared_from_this(), code] { self->EndFrame(code); });
}

// Within an event.
void Connection::EndFrame(int32_t code) {
  shared_->host->on_frame(shared_->host->ctx, token_, code);
  if (code == GF_OK) {
    ReadNext();
  } else {
    LastOfReading();
  }
}

// Within an event.
void Connection::LastOfReading() {
  FailLent();
  EndOperation();
}

// Within an event: no more is read, and the pipe closes.
void Connection::EndReading(const Status& reason) {
  if (SetEnd(reason)) {
    shared_->Log(LogLevel::kWarning, "closing the connection with " + peer_ + ": " + reason.text);
    pipe_->close();
  }
  LastOfReading();
}

// ---- The end -----------------------------------------------------------------------------------------------------

// Within an event, after the operation's last.
void Connection::EndOperation() {
  if (operations_.fetch_sub(1) != 1) return;
  const std::shared_ptr<Connection> self = shared_from_this();
  if (!discarded_) DeliverClosed();
  ended_(this);
}

void Connection::DeliverSent(void* op, const Status& status) {
  if (discarded_) return;
  const gf_transport_host* host = shared_->host;
  if (status.ok()) return host->on_sent(host->ctx, token_, op, nullptr);
  gf_transport_error error{};
  error.struct_size = sizeof(error);
  Fill(&error, status);
  host->on_sent(host->ctx, token_, op, &error);
}

void Connection::DeliverClosed() {
  gf_transport_error error{};
  error.struct_size = sizeof(error);
  Fill(&error, *End());
  shared_->host->on_closed(shared_->host->ctx, token_, &error);
}

// The pipe's error in our terms, for the case that we have not closed.
Status Connection::Failure(const pipe::Error& error) const {
  if (origin_ == Origin::kDialled && !stands_ && !IsFromPeer(error)) {
    return {GF_UNAVAILABLE, "cannot connect to " + peer_ + ": " + Describe(error)};
  }
  return {GF_PEER_LOST, "the connection with " + peer_ + " broke: " + Describe(error)};
}

// Returns whether this reason is the first.
bool Connection::SetEnd(Status reason) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (end_) return false;
  end_ = std::move(reason);
  return true;
}

std::optional<Status> Connection::End() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return end_;
}

}  // namespace gradferry::tp
