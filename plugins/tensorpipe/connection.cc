#include "plugins/tensorpipe/connection.h"

#include <chrono>
#include <utility>

namespace gradferry::tp {

namespace pipe = ::tensorpipe;

using std::chrono::steady_clock;

namespace {

// Setting up takes a few round trips; all the rest is for a peer that is short of processors.
constexpr std::chrono::seconds kSetUpLimit{10};
constexpr std::chrono::milliseconds kLinger{200};

}  // namespace

Connection::Connection(Shared* shared, std::shared_ptr<pipe::Pipe> pipe, Origin origin, std::string peer, Ended ended)
    : shared_(shared), pipe_(std::move(pipe)), origin_(origin), peer_(std::move(peer)), ended_(std::move(ended)) {}

void Connection::Start(void* token) {
  token_ = token;
  if (origin_ == Origin::kAccepted) SendWelcome();
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
  pipe::Message message;
  if (Status status = ToMessage(frame, shared_->max_segment, &message); !status.ok()) return status;
  if (!BeginSend()) {
    const std::optional<Status> end = End();
    if (end && !end->ok()) return *end;
    return {GF_CLOSED, "the connection with " + peer_ + " is closed"};
  }
  const uint64_t bytes = TotalBytes(frame.header_length, frame.segments, frame.segment_count);
  pipe_->write(std::move(message),
               [self = shared_from_this(), op, bytes](const pipe::Error& error) { self->OnWritten(error, op, bytes); });
  return {};
}

// Counts an operation, unless the connection has ended or is about to.
bool Connection::BeginSend() {
  if (End()) return false;
  uint32_t count = operations_.load();
  do {
    if (count == 0) return false;
  } while (!operations_.compare_exchange_weak(count, count + 1));
  return true;
}

void Connection::OnWritten(const pipe::Error& error, void* op, uint64_t bytes) {
  Status status;
  if (error) {
    SetEnd(Failure(error));
    status = *End();
    if (status.ok()) status = {GF_CLOSED, "the connection with " + peer_ + " was closed before the frame was sent"};
  } else {
    OnStands();
    ++shared_->counters.frames_sent;
    shared_->counters.bytes_sent += bytes;
  }
  shared_->events.Deliver([self = shared_from_this(), op, status = std::move(status)] {
    self->DeliverSent(op, status);
    self->EndOperation();
  });
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
    shared_->events.Deliver([self = shared_from_this()] { self->EndOperation(); });
    return;
  }
  OnStands();
  if (IsWelcome(descriptor)) return SkipWelcome();
  shared_->events.Deliver(
      [self = shared_from_this(), descriptor = std::move(descriptor)] { self->Announce(descriptor); });
}

// The host hears nothing of it.
void Connection::SkipWelcome() {
  pipe_->read(pipe::Allocation(), [self = shared_from_this()](const pipe::Error& error) {
    if (!error) return self->ReadNext();
    self->SetEnd(self->Failure(error));
    self->shared_->events.Deliver([self] { self->EndOperation(); });
  });
}

void Connection::Announce(const pipe::Descriptor& descriptor) {
  // The host has no use for memory for a frame that cannot arrive any more.
  if (End()) return EndOperation();
  Announcement announcement;
  if (Status status = FromDescriptor(descriptor, &announcement); !status.ok()) return EndReading(status);

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
              [self = shared_from_this(), bytes](const pipe::Error& error) { self->OnRead(error, bytes); });
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
  shared_->events.Deliver([self = shared_from_this(), code] {
    const gf_transport_host* host = self->shared_->host;
    host->on_frame(host->ctx, self->token_, code);
    if (code == GF_OK) {
      self->ReadNext();
    } else {
      self->EndOperation();
    }
  });
}

// Within an event: no more is read, and the pipe closes.
void Connection::EndReading(const Status& reason) {
  if (SetEnd(reason)) {
    shared_->Log(LogLevel::kWarning, "closing the connection with " + peer_ + ": " + reason.text);
    pipe_->close();
  }
  EndOperation();
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
