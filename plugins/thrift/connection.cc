#include "plugins/thrift/connection.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "plugins/thrift/linger.h"
#include "plugins/thrift/sockets.h"

namespace gradferry::thrift {
namespace {

using What = IoResult::What;

constexpr std::chrono::milliseconds kConnectAgain{5};
// In one round of the loop, so that others come to their turn.
constexpr int kReadsAtOnce = 32;
// Small frames whose on_sent waits for the next event; with more of them the loop is woken.
constexpr size_t kSentAtOnce = 64;
constexpr uint64_t kSentBytesAtOnce = 64 * 1024;
// Frames with more than this are not gathered, and for how long the others are.
constexpr uint64_t kGatherBytes = 16 * 1024;
constexpr std::chrono::microseconds kGatherTime{50};

uint64_t FrameBytes(const gf_transport_frame& frame) {
  uint64_t bytes = frame.header_length;
  for (uint32_t i = 0; i < frame.segment_count; ++i) bytes += frame.segments[i].length;
  return bytes;
}

gf_transport_error ToError(const Status& status) {
  gf_transport_error error{};
  error.struct_size = sizeof(error);
  Fill(&error, status);
  return error;
}

}  // namespace

Connection::Connection(Shared* shared, Loop* loop, Owner* owner, Origin origin, Address address)
    : shared_(shared), loop_(loop), owner_(owner), origin_(origin), address_(std::move(address)) {
  peer_ = address_.text;
}

// ---- Connecting --------------------------------------------------------------------------------------------------

void Connection::Dial(void* token) {
  token_ = token;
  loop_->Post([self = shared_from_this()] {
    const Turn turn(self.get());
    const int64_t patience = self->shared_->options.connect_timeout_ms;
    self->SetDeadline(patience, {GF_UNAVAILABLE, "cannot connect to " + self->address_.text + ": no answer within " +
                                                     std::to_string(patience) + " ms"});
    self->Connect();
  });
}

void Connection::Connect() {
  if (phase_ == Phase::kEnded) return;
  phase_ = Phase::kConnecting;
  bool pending = false, retry = false;
  FileDescriptor fd;
  Status status = BeginConnect(address_, &fd, &pending, &retry);
  if (retry) {
    loop_->At(Loop::Clock::now() + kConnectAgain, [self = shared_from_this()] {
      const Turn turn(self.get());
      self->Connect();
    });
    return;
  }
  if (status.ok()) status = loop_->Watch(fd.get(), pending ? EPOLLOUT : 0u, this);
  if (!status.ok()) {
    return End({status.code, "cannot connect to " + address_.text + ": " + status.text}, Farewell::kNone);
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    fd_ = std::move(fd);
  }
  if (!pending) OpenStream();
}

void Connection::OnConnected() {
  if (Status status = FinishConnect(fd_.get()); !status.ok()) {
    return End({status.code, "cannot connect to " + address_.text + ": " + status.text}, Farewell::kNone);
  }
  OpenStream();
}

void Connection::Adopt(FileDescriptor fd, std::string peer) {
  const Turn turn(this);
  const int64_t patience = shared_->options.handshake_timeout_ms;
  SetDeadline(patience, {GF_PEER_LOST, peer + " has sent no whole message within " + std::to_string(patience) + " ms"});
  CountUnproven(address_.scheme == Scheme::kTls);
  Status status = loop_->Watch(fd.get(), 0, this);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    peer_ = std::move(peer);
    fd_ = std::move(fd);
  }
  if (!status.ok()) return Refuse(status);
  OpenStream();
}

void Connection::OpenStream() {
  phase_ = Phase::kHandshaking;
  Status status;
  if (address_.is_unix()) {
    TuneLocal(fd_.get());
    if (origin_ == Origin::kDialled) status = CheckPeerUser(fd_.get());
  } else {
    TuneTcp(fd_.get(), shared_->options);
  }
  std::unique_ptr<Stream> stream;
  if (status.ok()) status = owner_->OpenStream(address_.scheme, origin_, fd_.get(), &stream);
  if (!status.ok()) return Refuse(status);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stream_ = std::move(stream);
  }
  ShakeHands();
}

void Connection::ShakeHands() {
  uint32_t events = 0;
  IoResult result = stream_->Handshake(&events);
  if (result.what == What::kBytes) return Open();
  if (result.what == What::kWouldBlock) return loop_->Change(fd_.get(), events, this);
  Refuse({origin_ == Origin::kDialled ? GF_UNAVAILABLE : GF_PEER_LOST, result.error});
}

void Connection::Open() {
  if (origin_ == Origin::kDialled) CancelDeadline();
  phase_ = Phase::kOpen;
  CountUnproven(false);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (origin_ == Origin::kDialled) peer_ = address_.text;
    open_ = true;
    loop_->Change(fd_.get(), Interest(), this);
    Flush();
  }
  if (origin_ == Origin::kDialled) {
    DeliverSent();
  } else {
    token_ = shared_->host->on_accept(shared_->host->ctx, reinterpret_cast<gf_transport_conn*>(this));
    if (token_ == nullptr) {
      discarded_ = true;
      return End({GF_OK, ""}, Farewell::kLinger);
    }
  }
  // What came together with the end of the handshake the stream has read already; the socket will not announce it.
  if (stream_->encrypted()) ReceiveAll();
}

void Connection::SetDeadline(int64_t milliseconds, Status reason) {
  has_deadline_ = true;
  deadline_ = loop_->At(Loop::Clock::now() + std::chrono::milliseconds(milliseconds),
                        [weak = weak_from_this(), reason = std::move(reason)] {
                          const auto self = weak.lock();
                          if (self == nullptr) return;
                          const Turn turn(self.get());
                          if (self->phase_ == Phase::kEnded) return;
                          self->has_deadline_ = false;
                          if (self->origin_ == Origin::kAccepted) self->shared_->Log(LogLevel::kWarning, reason.text);
                          self->End(reason, Farewell::kNone);
                        });
}

void Connection::CountUnproven(bool unproven) {
  if (unproven == unproven_) return;
  unproven_ = unproven;
  shared_->unproven += unproven ? 1 : -1;
}

void Connection::CancelDeadline() {
  if (has_deadline_) loop_->Cancel(deadline_);
  has_deadline_ = false;
}

// ---- Sending -----------------------------------------------------------------------------------------------------

class Connection::Gathering {
 public:
  Gathering() : outer_(std::exchange(current_, this)) {}
  ~Gathering() {
    current_ = outer_;
    Flush();
  }
  Gathering(const Gathering&) = delete;
  Gathering& operator=(const Gathering&) = delete;

  // This thread's; null when it gathers nothing.
  static Gathering* Current() { return current_; }

  void Add(std::shared_ptr<Connection> connection) {
    if (std::find(connections_.begin(), connections_.end(), connection) != connections_.end()) return;
    if (connections_.empty()) since_ = Loop::Clock::now();
    connections_.push_back(std::move(connection));
  }
  // Between two frames: others wait long enough for what this thread does.
  void FlushIfLate() {
    if (!connections_.empty() && Loop::Clock::now() - since_ > kGatherTime) Flush();
  }

 private:
  void Flush() {
    for (const auto& connection : connections_) connection->FlushGathered();
    connections_.clear();
  }

  static inline thread_local Gathering* current_ = nullptr;

  Gathering* const outer_;
  Loop::Clock::time_point since_;
  std::vector<std::shared_ptr<Connection>> connections_;
};

Status Connection::Send(const gf_transport_frame& frame, void* op) {
  if (Status status = CheckFrame(frame); !status.ok()) return status;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (ended_ && !end_.ok()) return end_;
  if (ended_ || closing_) return {GF_CLOSED, "the connection with " + peer_ + " is closed"};
  if (gateway_ != nullptr) return GiveToClient(frame, op);
  if (!open_ || blocked_ || !write_error_.empty()) {
    outbox_.Add(frame, op);
    return {};
  }
  Gathering* const gathering = Gathering::Current();
  if (gathering != nullptr && (FrameBytes(frame) <= kGatherBytes || !outbox_.empty())) {
    outbox_.Add(frame, op);
    gathering->Add(shared_from_this());
    return {};
  }
  if (!outbox_.empty()) {  // gathered by another thread, which may be busy for longer
    outbox_.Add(frame, op);
    FlushAndReport();
    return {};
  }
  const IoResult result = outbox_.Write(stream_.get(), frame, op);
  if (result.what == What::kWouldBlock) {
    blocked_ = true;
    OnBlocked();
  } else if (result.what != What::kBytes) {
    // What the peer has sent before it went is still to be read.
    write_error_ = result.error;
    PostReceive();
  }
  if (!outbox_.sent().empty()) ScheduleSent();
  return {};
}

void Connection::FlushGathered() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (open_ && !ended_ && !blocked_) FlushAndReport();
}

// Under the lock.
void Connection::FlushAndReport() {
  Flush();
  if (!outbox_.sent().empty()) ScheduleSent();
}

// Under the lock: who holds the connection writes on when the socket has room.
void Connection::OnBlocked() {
  if (holder_ == Holder::kDriver) {
    ::eventfd_write(driver_wake_, 1);
  } else {
    loop_->Change(fd_.get(), Interest(), this);
  }
}

// Under the lock: what the loop waits for. Of a connection that is driven it hears no more than once that it has hung
// up, which would not let it sleep.
uint32_t Connection::Interest() const {
  if (holder_ == Holder::kDriver) return EPOLLONESHOT;
  return blocked_ ? EPOLLIN | EPOLLOUT : uint32_t{EPOLLIN};
}

// Under the lock.
void Connection::Flush() {
  if (!write_error_.empty()) return;
  const IoResult result = outbox_.Flush(stream_.get());
  const bool was_blocked = std::exchange(blocked_, result.what == What::kWouldBlock);
  if (blocked_ && !was_blocked) OnBlocked();
  if (!blocked_ && was_blocked && holder_ != Holder::kDriver) loop_->Change(fd_.get(), Interest(), this);
  if (blocked_ || result.what == What::kBytes) return;
  write_error_ = result.error;
  PostReceive();
}

// Under the lock: the loop shall report what has been sent.
void Connection::ScheduleSent() {
  const bool now = outbox_.sent().size() > kSentAtOnce || outbox_.sent_bytes() > kSentBytesAtOnce;
  if (deferred_ && (deferred_now_ || !now)) return;
  deferred_ = true;
  deferred_now_ = now;
  loop_->Defer(shared_from_this(), now ? Loop::Urgency::kNow : Loop::Urgency::kSoon);
}

void Connection::RunDeferred() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    deferred_ = deferred_now_ = false;
    if (outbox_.sent().empty()) return;
  }
  const Turn turn(this);
  DeliverSent();
}

void Connection::DeliverSent() {
  if (phase_ == Phase::kEnded) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (outbox_.sent().empty()) return;
    outbox_.TakeSent(&reporting_);
  }
  for (const Outbox::Sent& sent : reporting_) {
    ++shared_->counters.frames_sent;
    shared_->counters.bytes_sent += sent.bytes;
    ReportSent(sent.op, {});
  }
  reporting_.clear();
}

void Connection::ReportSent(void* op, const Status& status) {
  if (discarded_) return;
  const gf_transport_host* host = shared_->host;
  if (status.ok()) return host->on_sent(host->ctx, token_, op, nullptr);
  const gf_transport_error error = ToError(status);
  host->on_sent(host->ctx, token_, op, &error);
}

// ---- Receiving ---------------------------------------------------------------------------------------------------

void Connection::OnReady(uint32_t events) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (holder_ == Holder::kDriver) return;  // which reads and writes by itself
  }
  const Turn turn(this);
  try {
    SeeTo(events);
  } catch (const std::exception& exception) {
    // Memory, which a peer that asks for much may have made scarce.
    if (phase_ != Phase::kEnded) Refuse({GF_RESOURCE_EXHAUSTED, exception.what()});
  }
}

void Connection::SeeTo(uint32_t events) {
  switch (phase_) {
    case Phase::kConnecting:
      return OnConnected();
    case Phase::kHandshaking:
      return ShakeHands();
    case Phase::kOpen:
      if ((events & EPOLLOUT) != 0) {
        const std::lock_guard<std::mutex> lock(mutex_);
        Flush();
      }
      DeliverSent();
      if ((events & ~static_cast<uint32_t>(EPOLLOUT)) != 0) ReceiveAll();
      return;
    case Phase::kIdle:
    case Phase::kEnded:
      return;
  }
}

void Connection::ReceiveAll() {
  if (Receive()) PostReceive();
}

void Connection::PostReceive() {
  loop_->Post([self = shared_from_this()] {
    const Turn turn(self.get());
    self->ReceiveAll();
  });
}

bool Connection::Receive() {
  const Gathering gathering;
  try {
    return Read();
  } catch (const std::exception& exception) {  // as in OnReady
    if (phase_ != Phase::kEnded) Refuse({GF_RESOURCE_EXHAUSTED, exception.what()});
    return false;
  }
}

bool Connection::Read() {
  if (phase_ != Phase::kOpen || ending_) return false;
  iovec pieces[FrameReader::kMaxPieces];
  bool all = false;
  for (int reads = 0; reads < kReadsAtOnce && !all; ++reads) {
    if (closing_) return false;
    const size_t count = reader_.Want(pieces);
    const IoResult result = stream_->Read(pieces, count);
    if (result.what == What::kEnd) return Break("the peer closed it"), false;
    if (result.what == What::kFailed) return Break(result.error), false;
    all = result.what == What::kWouldBlock;
    if (all) break;
    if (Status status = reader_.Took(result.bytes); !status.ok()) return Refuse(status), false;
    all = result.drained;
  }
  std::string write_error;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    write_error = write_error_;
  }
  if (!write_error.empty()) Break(write_error);
  // What a stream keeps to itself the socket does not announce.
  return !all && stream_->encrypted();
}

Status Connection::OnDescriptor(const gf_transport_frame& frame, gf_transport_segment* segments) {
  if (gateway_ != nullptr) return {GF_DATA_LOSS, "a worker's frame came from a stock Thrift client"};
  const gf_transport_host* host = shared_->host;
  const int32_t code = host->on_descriptor(host->ctx, token_, &frame, segments);
  if (code == GF_OK) return {};
  return {code, "a frame was refused"};
}

void Connection::OnWholeFrame(uint64_t bytes) {
  Introduced();
  ++received_;
  ++shared_->counters.frames_received;
  shared_->counters.bytes_received += bytes;
  shared_->counters.bytes_copied += reader_.copied() - counted_copies_;
  counted_copies_ = reader_.copied();
  if (Gathering* gathering = Gathering::Current()) gathering->FlushIfLate();
  shared_->host->on_frame(shared_->host->ctx, token_, GF_OK);
}

void Connection::Introduced() {
  if (!introduced_) CancelDeadline();
  introduced_ = true;
}

// ---- Stock clients -----------------------------------------------------------------------------------------------

// Who has sent a frame is a worker and sends nothing else; and we are nobody's server where we have dialled.
uint64_t Connection::MaxMessage() {
  if (gateway_ != nullptr) return gateway_->MaxMessage();
  return origin_ == Origin::kAccepted && !introduced_ ? Gateway::kMaxGreeting : 0;
}

Status Connection::OnMessage(std::string_view message) {
  if (gateway_ == nullptr) {
    auto gateway = std::make_unique<Gateway>();
    const std::lock_guard<std::mutex> lock(mutex_);
    gateway_ = std::move(gateway);
  }
  Introduced();
  Gateway::Outcome outcome;
  if (Status status = gateway_->Take(message, &outcome); !status.ok()) return status;
  const bool answered = !outcome.answer.empty();
  if (answered) {
    const std::lock_guard<std::mutex> lock(mutex_);
    SendAnswer(std::move(outcome.answer));
  }
  if (outcome.header.empty()) return {};
  const Status status = Deliver(outcome.header, outcome.tensors.Segments());
  if (!status.ok() && !answered) {
    const std::lock_guard<std::mutex> lock(mutex_);
    SendAnswer(gateway_->Refused(status));
  }
  return status;
}

// A frame of the gateway's, as if it had arrived.
Status Connection::Deliver(const std::string& header, const std::vector<std::string_view>& segments) {
  std::vector<gf_transport_segment> announced;
  for (const std::string_view segment : segments) announced.push_back({nullptr, segment.size()});
  std::vector<gf_transport_segment> filled = announced;
  gf_transport_frame frame{};
  frame.struct_size = sizeof(frame);
  frame.segment_count = static_cast<uint32_t>(announced.size());
  frame.header = header.data();
  frame.header_length = header.size();
  frame.segments = announced.data();
  const gf_transport_host* host = shared_->host;
  const int32_t code = host->on_descriptor(host->ctx, token_, &frame, filled.data());
  if (code != GF_OK) return {code, "a message of a Thrift client was refused"};
  const bool given = std::all_of(filled.begin(), filled.end(), [](const auto& one) { return one.data != nullptr; });
  if (!given) {
    host->on_frame(host->ctx, token_, GF_INTERNAL);
    return {GF_INTERNAL, "the host gave a frame no memory"};
  }
  for (size_t i = 0; i < segments.size(); ++i) std::memcpy(filled[i].data, segments[i].data(), segments[i].size());
  ++shared_->counters.frames_received;
  host->on_frame(host->ctx, token_, GF_OK);
  return {};
}

// Under the lock.
Status Connection::GiveToClient(const gf_transport_frame& frame, void* op) {
  Gateway::Outcome outcome;
  if (Status status = gateway_->Give(frame, &outcome); !status.ok()) return status;
  outbox_.Complete(op, outcome.answer.size());
  ScheduleSent();
  if (!outcome.answer.empty()) SendAnswer(std::move(outcome.answer));
  if (outcome.heartbeat) {
    loop_->Post([self = shared_from_this()] {
      const Turn turn(self.get());
      if (self->phase_ == Phase::kOpen && !self->closing_) (void)self->Deliver(self->gateway_->Heartbeat(), {});
    });
  }
  return {};
}

// Under the lock.
void Connection::SendAnswer(std::string answer) {
  outbox_.Add(std::move(answer));
  if (!blocked_) Flush();
}

// ---- The end -----------------------------------------------------------------------------------------------------

void Connection::Close() {
  if (closing_.exchange(true)) return;
  loop_->Post([self = shared_from_this()] {
    const Turn turn(self.get());
    if (self->phase_ != Phase::kEnded) self->End({GF_OK, ""}, Farewell::kLinger);
  });
}

// The peer's doing, or the network's.
void Connection::Break(const std::string& why) {
  std::string text = "the connection with " + peer_ + " broke";
  if (reader_.in_message()) text += " within a message";
  End({GF_PEER_LOST, text + ": " + why}, Farewell::kNone);
}

// Ours: the peer is not one that we want to talk to, or says what it should not.
void Connection::Refuse(Status status) {
  if (phase_ != Phase::kOpen) {
    if (origin_ == Origin::kAccepted) ++shared_->counters.refused;
    status.text = (origin_ == Origin::kDialled ? "cannot connect to " : "refused a connection from ") + peer_ + ": " +
                  status.text;
  } else {
    status.text = "closing the connection with " + peer_ + ": " + status.text;
  }
  shared_->Log(LogLevel::kWarning, status.text);
  End(status, Farewell::kLinger);
}

void Connection::End(Status reason, Farewell farewell) {
  const std::shared_ptr<Connection> self = shared_from_this();
  if (!loop_->OnThisThread()) {
    ending_ = true;
    loop_->Post([self, reason, farewell] {
      const Turn turn(self.get());
      if (self->phase_ != Phase::kEnded) self->End(reason, farewell);
    });
    return;
  }
  const bool was_open = phase_ == Phase::kOpen;
  DeliverSent();
  phase_ = Phase::kEnded;
  // The host has not heard of an accepted one that was not open.
  if (!was_open && origin_ == Origin::kAccepted) discarded_ = true;
  CancelDeadline();
  CountUnproven(false);
  FileDescriptor fd;
  bool linger = false;
  std::vector<void*> unsent;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (closing_) reason = {GF_OK, ""};
    if (was_open && reason.ok() && write_error_.empty()) outbox_.Flush(stream_.get());
    ended_ = true;
    end_ = reason;
    if (fd_.valid()) loop_->Forget(fd_.get());
    linger = farewell == Farewell::kLinger && stream_ != nullptr;
    if (linger) stream_->Finish();
    fd = std::move(fd_);
    unsent = outbox_.TakeWaiting();
    outbox_.TakeSent(&reporting_);
  }
  if (linger && !address_.is_unix()) Linger(loop_, std::move(fd));
  fd.reset();

  for (const Outbox::Sent& sent : reporting_) ReportSent(sent.op, {});
  Status lost = reason;
  if (lost.ok()) lost = {GF_CLOSED, "the connection with " + peer_ + " was closed before the frame was sent"};
  for (void* op : unsent) ReportSent(op, lost);
  if (!discarded_) {
    const gf_transport_host* host = shared_->host;
    if (was_open && reader_.in_frame()) host->on_frame(host->ctx, token_, reason.ok() ? GF_CLOSED : reason.code);
    const gf_transport_error error = ToError(reason);
    host->on_closed(host->ctx, token_, &error);
  }
  owner_->OnEnded(this);
}

// ---- Whose thread ------------------------------------------------------------------------------------------------

Connection::Turn::Turn(Connection* connection) : connection_(connection->shared_from_this()) {
  std::unique_lock<std::mutex> lock(connection_->mutex_);
  if (connection_->holder_ == Holder::kDriver) {
    connection_->reclaimed_ = true;
    ::eventfd_write(connection_->driver_wake_, 1);
    connection_->driver_left_.wait(lock, [this] { return connection_->holder_ == Holder::kNobody; });
    connection_->reclaimed_ = false;
  }
  connection_->holder_ = Holder::kLoop;
}

Connection::Turn::~Turn() {
  const std::lock_guard<std::mutex> lock(connection_->mutex_);
  connection_->holder_ = Holder::kNobody;
}

bool Connection::BeginDriving(int wake_fd) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (holder_ != Holder::kNobody || reclaimed_ || !open_ || ended_ || closing_ || ending_) return false;
  holder_ = Holder::kDriver;
  driver_wake_ = wake_fd;
  loop_->Change(fd_.get(), Interest(), this);
  return true;
}

void Connection::EndDriving() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    holder_ = Holder::kNobody;
    driver_wake_ = -1;
    if (!outbox_.sent().empty()) ScheduleSent();
    loop_->Change(fd_.get(), Interest(), this);
  }
  driver_left_.notify_all();
}

void Connection::WakeDriver() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (holder_ == Holder::kDriver) ::eventfd_write(driver_wake_, 1);
}

void Connection::Drive(uint64_t until, int32_t (*done)(void* arg), void* arg) {
  // One for each thread that ever drives; it is read before each use.
  thread_local const FileDescriptor wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid() || done(arg) != 0 || !BeginDriving(wake.get())) return;
  const auto leave = [&] {
    if (ending_ || done(arg) != 0) return true;
    const std::lock_guard<std::mutex> lock(mutex_);
    return reclaimed_;
  };
  uint64_t before = received_;
  spin_.Begin();
  while (!leave()) {
    const bool more = Receive();
    const bool blocked = WriteOn();
    DeliverSent();
    if (std::exchange(before, received_) != received_) {
      spin_.End();
      spin_.Begin();
      continue;
    }
    if (more || spin_.Again()) continue;
    if (shared_->host->now(shared_->host->ctx) >= until) break;
    Sleep(until, wake.get(), blocked);
  }
  EndDriving();
}

// The driver writes what waits for the socket; whether some of it still does.
bool Connection::WriteOn() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (blocked_) Flush();
  return blocked_;
}

void Connection::Sleep(uint64_t until, int wake_fd, bool blocked) {
  const short events = blocked ? POLLIN | POLLOUT : POLLIN;
  pollfd fds[] = {{fd_.get(), events, 0}, {wake_fd, POLLIN, 0}};
  timespec left{};
  if (until != UINT64_MAX) {
    const uint64_t now = shared_->host->now(shared_->host->ctx);
    const uint64_t ns = until > now ? until - now : 0;
    left.tv_sec = static_cast<time_t>(std::min<uint64_t>(ns / 1000000000, 1000000));
    left.tv_nsec = static_cast<long>(ns % 1000000000);
  }
  ::ppoll(fds, 2, until == UINT64_MAX ? nullptr : &left, nullptr);
  if ((fds[1].revents & POLLIN) != 0) {
    eventfd_t count;
    ::eventfd_read(wake_fd, &count);
  }
}

std::string Connection::PeerJson() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  nlohmann::json json = {{"address", peer_}};
  json["path"] = address_.is_unix() ? "unix" : "tcp";
  json["encrypted"] = stream_ != nullptr && stream_->encrypted();
  if (stream_ != nullptr && stream_->identities() != nullptr) json["identities"] = *stream_->identities();
  return json.dump();
}

}  // namespace gradferry::thrift
