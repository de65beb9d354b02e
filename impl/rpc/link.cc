// See link.h.
#include "impl/rpc/link.h"

#include <algorithm>
#include <utility>

#include "impl/base/log.h"

namespace gradferry {
namespace {

// A hello has no tensors and is small; more from a stranger is refused before anything is allocated.
constexpr size_t kMaxHelloBytes = 4096;

}  // namespace

// ---- Link --------------------------------------------------------------------------------------------------------

Status Link::OnDescriptor(std::string_view header, std::vector<Segment>& segments) {
  if (!reason_.ok()) return reason_;
  if (!Introduced() && (!segments.empty() || header.size() > kMaxHelloBytes)) {
    return reason_ = Status(Code::kUnauthenticated, "the peer sent data before it introduced itself");
  }
  arriving_ = Arriving();
  if (reason_ = CheckSeal(header); !reason_.ok()) return reason_;
  const uint16_t agreed = version_, version = FrameVersion(header);
  if (agreed != 0 && version != 0 && version != agreed && !arriving_->duplicate) {
    return reason_ = Status(Code::kUnsupported, StrCat("a frame of version ", version, " came from ", PeerName(),
                                                       ", with whom version ", agreed, " was agreed upon"));
  }
  if (reason_ = Announced(header.substr(0, header.size() - kSealBytes), segments); !reason_.ok()) return reason_;
  uint64_t bytes = header.size();
  for (const Segment& segment : segments) {
    arriving_->segments.push_back({segment.data, segment.length});
    bytes += segment.length;
  }
  Add(home_->metrics->bytes_received, bytes);
  if (PeerMetrics* peer = peer_metrics()) Add(peer->bytes_received, bytes);
  silence_->Heard(home_->clock->Now());
  silence_->Receiving(bytes);
  return OkStatus();
}

namespace {

// Memory for what nobody will read.
Status PlaceDropped(std::vector<Segment>& segments, uint64_t most, std::unique_ptr<char[]>& memory) {
  uint64_t total = 0;
  for (const Segment& segment : segments) {
    if (segment.length > most - total) {
      return Status(Code::kResourceExhausted, StrCat("a frame is larger than limits.message_bytes (", most, ")"));
    }
    total += segment.length;
  }
  memory.reset(new char[total]);
  char* next = memory.get();
  for (Segment& segment : segments) segment.data = std::exchange(next, next + segment.length);
  return OkStatus();
}

}  // namespace

Status Link::Announced(std::string_view message, std::vector<Segment>& segments) {
  if (arriving_->duplicate) return PlaceDropped(segments, limits().message_bytes, arriving_->dropped);
  if (IsTensorChunk(message)) return PlaceChunk(message, segments);
  if (arriving_->seal.in_chunks) {
    if (!Introduced()) return Status(Code::kUnauthenticated, "the peer sent data before it introduced itself");
    if (version_ == 1) return Status(Code::kDataLoss, "version 1 of the protocol knows no messages in chunks");
    if (!segments.empty()) return Status(Code::kDataLoss, "the frame of a message in chunks has segments of its own");
    GF_ASSIGN_OR_RETURN(arriving_->decoder, FrameDecoder::NewInChunks(message, limits()));
    return ChargeArriving(message.size());
  }
  std::vector<uint64_t> lengths;
  lengths.reserve(segments.size());
  for (const Segment& segment : segments) lengths.push_back(segment.length);
  GF_ASSIGN_OR_RETURN(arriving_->decoder, FrameDecoder::New(message, lengths, limits()));
  const auto& targets = arriving_->decoder->segments();
  for (size_t i = 0; i < segments.size(); ++i) segments[i].data = targets[i].data;
  return ChargeArriving(message.size());
}

Status Link::ChargeArriving(size_t header_bytes) {
  if (!account_) return OkStatus();
  uint64_t bytes = header_bytes;
  for (const FrameSegment& segment : arriving_->decoder->segments()) bytes += segment.length;
  arriving_->decoder->held = account_->Charge(bytes);
  if (arriving_->decoder->held) return OkStatus();
  return Status(Code::kResourceExhausted,
                StrCat("limits.memory_per_peer (", account_->limit(), "): a message of ", bytes, " bytes came from ",
                       PeerName(), ", for which ", account_->used(), " bytes are held already"));
}

Status Link::PlaceChunk(std::string_view message, std::vector<Segment>& segments) {
  GF_ASSIGN_OR_RETURN(auto decoder, FrameDecoder::New(message, {}, limits()));
  GF_ASSIGN_OR_RETURN(const DecodedMessage chunk, decoder->Finish());
  const uint64_t transfer = std::get<TensorChunk>(chunk.message).transfer;
  arriving_->chunk_of = transfer;
  return transfers_.Place(transfer, segments);
}

Status Link::CheckSeal(std::string_view header) {
  const auto seal = ReadSeal(header);
  if (!seal.ok()) {
    // Another version of the protocol may have no seal, or another one.
    const auto version = FrameDecoder::New(header, {}, *home_->limits);
    if (next_in_ == 0 && version.status().code() == Code::kUnsupported) return version.status();
    return Status(Code::kDataLoss, StrCat("frame ", next_in_, " of the connection from ", PeerName(),
                                          " is damaged: ", seal.status().message()));
  }
  arriving_->seal = *seal;
  arriving_->duplicate = seal->sequence < next_in_;
  if (seal->sequence <= next_in_) return OkStatus();
  return Status(Code::kDataLoss, StrCat("frame ", next_in_, " of the connection from ", PeerName(),
                                        " is missing: frame ", seal->sequence, " came"));
}

Status Link::CheckSegments(const std::vector<FrameSegment>& segments) const {
  const Seal& seal = arriving_->seal;
  if (!seal.segments) return OkStatus();
  const uint32_t actual = SegmentsChecksum(segments);
  if (actual == *seal.segments) return OkStatus();
  return Status(Code::kDataLoss,
                StrCat("the tensors of frame ", seal.sequence, " of the connection from ", PeerName(),
                       " are damaged: their checksum is ", actual, ", their sender computed ", *seal.segments));
}

void Link::OnFrame(Status status) {
  silence_->Heard(home_->clock->Now());
  silence_->Receiving(0);
  if (!status.ok() || !reason_.ok() || !arriving_) return arriving_.reset();  // OnClosed follows
  if (arriving_->duplicate) {
    Add(home_->metrics->frames_duplicate);
    Log(LogLevel::kDebug, "frame ", arriving_->seal.sequence, " of the connection from ", PeerName(),
        " came again and was dropped");
    return arriving_.reset();
  }
  ++next_in_;
  Add(home_->metrics->frames_received);
  if (PeerMetrics* peer = peer_metrics()) Add(peer->frames_received);
  reason_ = CheckSegments(arriving_->segments);
  Arriving frame = std::move(*arriving_);
  arriving_.reset();
  if (reason_.ok() && frame.seal.in_chunks) return transfers_.Begin(frame.seal.sequence, std::move(frame.decoder));
  if (reason_.ok() && frame.chunk_of) frame.decoder = transfers_.Placed(*frame.chunk_of);
  if (reason_.ok() && frame.decoder) reason_ = OnWhole(std::move(frame.decoder));
  if (!reason_.ok()) CloseConnection();
}

Status Link::OnWhole(std::unique_ptr<FrameDecoder> decoder) {
  GF_ASSIGN_OR_RETURN(DecodedMessage message, decoder->Finish());
  UnwrapProfiling(message);
  if (Introduced()) {
    if (auto* heartbeat = std::get_if<Heartbeat>(&message.message)) return OnHeartbeat(*heartbeat);
    if (auto* given_up = std::get_if<TransferGivenUp>(&message.message)) return transfers_.GiveUp(given_up->transfer);
  }
  return OnMessage(std::move(message));
}

Status Link::OnHeartbeat(const Heartbeat& heartbeat) {
  // When it cannot be sent the connection has ended.
  if (heartbeat.answer) (void)SendMessage(Heartbeat{false});
  return OkStatus();
}

void Link::OnClosed(Status status) {
  CancelIntroduction();
  {
    std::lock_guard lock(connection_mutex_);
    connection_ = nullptr;
    if (!verdict_.ok()) status = verdict_;
  }
  const Status broken = outbox_->Close();
  transfers_.Clear();
  if (!broken.ok()) status = broken;
  if (!reason_.ok()) status = reason_;
  Closed(status);
}

void Link::ExpectIntroduction() {
  const int64_t limit = home_->liveness->introduction;
  if (limit == kNever) return;
  std::lock_guard lock(connection_mutex_);
  introduction_ =
      home_->clock->Schedule(DeadlineAfter(home_->clock->Now(), limit), [weak = std::weak_ptr<Link>(Self())] {
        const auto self = weak.lock();
        if (!self || self->Introduced()) return;
        const int64_t limit = self->home_->liveness->introduction;
        self->CloseBecause(Status(Code::kUnavailable, StrCat(self->PeerName(), " did not introduce itself within ",
                                                             limit / 1000000, " ms (liveness.introduction)")));
      });
}

void Link::CancelIntroduction() {
  TimerId timer;
  {
    std::lock_guard lock(connection_mutex_);
    timer = std::exchange(introduction_, 0);
  }
  if (timer != 0) home_->clock->Cancel(timer);
}

int64_t Link::LookAfter(int64_t now, int64_t grace) {
  int64_t silent = 0;
  int64_t next = kNever;
  const auto verdict = silence_->Look(*home_->liveness, now, grace, &silent, &next);
  const auto text = [&] { return StrCat(PeerName(), " was silent for ", silent / 1000000 / 1000.0, " s"); };
  if (verdict == Silence::Verdict::kLost) {
    lost_ = true;
    CloseBecause(Status(Code::kPeerLost, text()));
    return kNever;
  }
  if (!Introduced()) return next;  // it has its own limit, too; there is nothing to ask yet
  const bool suspect = verdict == Silence::Verdict::kSuspect;
  if (suspect_.exchange(suspect) != suspect) {
    if (suspect) {
      Log(LogLevel::kWarning, text());
    } else {
      Log(LogLevel::kInfo, PeerName(), " is heard of again");
    }
  }
  // When it cannot be sent the connection has ended.
  if (verdict != Silence::Verdict::kFine) (void)SendMessage(Heartbeat{true});
  return next;
}

void Link::Rest() {
  silence_->Rest();
  suspect_ = false;
}

Status Link::SendMessage(const Message& message, const std::vector<bool>& record_grad) {
  GF_ASSIGN_OR_RETURN(EncodedFrame frame, EncodeFrame(message, record_grad, *home_->limits));
  return SendFrame(std::move(frame));
}

void Link::SayGoodbye(const std::string& reason) {
  auto frame = EncodeFrame(Goodbye{reason}, {}, limits());
  if (frame.ok()) outbox_->SendLast(std::move(*frame));
}

void Link::CloseConnection() {
  if (const auto connection = this->connection()) connection->Close();
}

std::shared_ptr<Connection> Link::connection() {
  std::lock_guard lock(connection_mutex_);
  return connection_;
}

void Link::CloseBecause(Status why) {
  {
    std::lock_guard lock(connection_mutex_);
    if (verdict_.ok()) verdict_ = std::move(why);
  }
  CloseConnection();
}

void Link::SetVersion(uint16_t version, bool peer_takes_chunks) {
  version_ = version;
  outbox_->SetVersion(version, peer_takes_chunks);
}

void Link::SetVerdict(Status why) {
  std::lock_guard lock(connection_mutex_);
  if (verdict_.ok()) verdict_ = std::move(why);
}

Status Link::AskForPeer() {
  std::shared_ptr<Connection> connection;
  {
    std::lock_guard lock(connection_mutex_);
    connection = connection_;
  }
  if (!connection) return Status(Code::kPeerLost, "the connection has ended");
  GF_ASSIGN_OR_RETURN(PeerInfo info, connection->Peer());
  std::lock_guard lock(connection_mutex_);
  peer_info_ = std::move(info);
  return OkStatus();
}

PeerInfo Link::peer_info() const {
  std::lock_guard lock(connection_mutex_);
  return peer_info_;
}

void Link::SetConnection(std::shared_ptr<Connection> connection) {
  outbox_->SetConnection(connection);
  std::lock_guard lock(connection_mutex_);
  transport_ = connection->transport();
  connection_ = std::move(connection);
}

std::string Link::transport() const {
  std::lock_guard lock(connection_mutex_);
  return transport_;
}

// ---- ClientLink --------------------------------------------------------------------------------------------------

Status ClientLink::Begin(std::shared_ptr<Connection> connection) {
  GF_ASSIGN_OR_RETURN(EncodedFrame frame, EncodeFrame(handshake_.hello(), {}, limits()));
  SetConnection(std::move(connection));
  // When it cannot be sent the connection has ended already, and Closed tells why.
  (void)SendFrame(std::move(frame));
  return OkStatus();
}

Status ClientLink::SendOrQueue(EncodedFrame frame, uint64_t call_id) {
  {
    std::lock_guard lock(mutex_);
    if (closed_) return closed_status_;
    if (!ready_) {
      queued_.push_back({std::move(frame), call_id});
      return OkStatus();
    }
  }
  return SendFrame(std::move(frame), call_id);
}

Status ClientLink::SendQueued() {
  std::unique_lock lock(mutex_);
  while (!queued_.empty()) {
    std::vector<QueuedFrame> frames = std::exchange(queued_, {});
    lock.unlock();
    for (QueuedFrame& queued : frames) GF_RETURN_IF_ERROR(SendFrame(std::move(queued.frame), queued.call_id));
    lock.lock();
  }
  ready_ = true;
  return OkStatus();
}

void ClientLink::SayGoodbye(const std::string& reason) {
  {
    std::lock_guard lock(mutex_);
    if (closed_) return;
    if (!ready_) {
      auto frame = EncodeFrame(Goodbye{reason}, {}, limits());
      if (frame.ok()) queued_.push_back({std::move(*frame), 0});
      return;
    }
  }
  Link::SayGoodbye(reason);
}

void ClientLink::TakeBack(uint64_t call_id, bool tell) {
  EncodedFrame dropped;
  {
    std::lock_guard lock(mutex_);
    const auto it = std::find_if(queued_.begin(), queued_.end(),
                                 [call_id](const QueuedFrame& queued) { return queued.call_id == call_id; });
    if (it != queued_.end()) {
      dropped = std::move(it->frame);
      queued_.erase(it);
      return;
    }
  }
  if (GiveUp(call_id) || !tell) return;
  (void)Notify(Cancel{call_id});  // when it cannot be told it knows from the connection
}

namespace {

struct SetCallId {
  uint64_t call_id;
  void operator()(Call& call) const { call.call_id = call_id; }
  void operator()(MarkSendFunctions& mark) const { mark.call_id = call_id; }
  void operator()(PropagateGradients& gradients) const { gradients.call_id = call_id; }
  void operator()(MarkNeeded& needed) const { needed.call_id = call_id; }
  void operator()(AbortPass& abort) const { abort.call_id = call_id; }
  void operator()(RequestTurn& turn) const { turn.call_id = call_id; }
  void operator()(CleanupAutogradContext& cleanup) const { cleanup.call_id = call_id; }
  void operator()(ContextsAlive& alive) const { alive.call_id = call_id; }
  void operator()(RpcWithAutograd& rpc) const { std::visit(*this, rpc.wrapped); }
  void operator()(RpcWithProfiling& rpc) const { std::visit(*this, rpc.wrapped); }
  template <class T>
  void operator()(T&) const {}
};

}  // namespace

Result<uint64_t> ClientLink::Request(OutRequest& request, AnswerCallback& done) {
  const uint64_t call_id = next_call_id_.fetch_add(1, std::memory_order_relaxed);
  std::visit(SetCallId{call_id}, request.message);
  if (request.numbered) request.numbered(call_id);
  GF_ASSIGN_OR_RETURN(EncodedFrame frame, EncodeFrame(request.message, request.record_grad, limits()));
  auto pending = std::make_unique<Pending>(TickerReason(home().ticker));
  pending->operation = request.operation;
  pending->kind = CallKindOf(request.message);
  pending->began = home().clock->Now();
  pending->cancel_on_deadline = request.cancel_on_deadline;
  {
    std::lock_guard lock(mutex_);
    if (closed_) return closed_status_;
    pending->done = std::move(done);
    if (request.deadline != kNever) {
      // Under the lock, so that the timer cannot fire before the request is there.
      pending->timer = home().clock->Schedule(request.deadline, [weak = weak_from_this(), call_id] {
        if (auto self = weak.lock()) self->OnDeadline(call_id);
      });
    }
    pending_[call_id] = std::move(pending);
  }
  if (Status status = SendOrQueue(std::move(frame), call_id); !status.ok()) {
    if (auto taken = Take(call_id)) {
      done = std::move(taken->done);
      return status.WithPeer(owner_.peer_name).WithOperation(taken->operation);
    }
    // Its `done` has been called, by Closed.
  }
  return call_id;
}

Status ClientLink::Notify(const Message& message) {
  GF_ASSIGN_OR_RETURN(EncodedFrame frame, EncodeFrame(message, {}, limits()));
  return SendOrQueue(std::move(frame), 0);
}

bool ClientLink::Abandon(uint64_t call_id, bool tell) {
  const auto pending = Take(call_id);
  if (!pending) return false;
  Record(*pending, Code::kCancelled);
  TakeBack(call_id, tell);
  return true;
}

void ClientLink::Drive(int64_t until, const std::function<bool()>& done) {
  if (const auto connection = this->connection()) connection->Drive(until, done);
}

void ClientLink::WakeDriver() {
  if (const auto connection = this->connection()) connection->WakeDriver();
}

std::unique_ptr<ClientLink::Pending> ClientLink::Take(uint64_t call_id) {
  std::unique_ptr<Pending> pending;
  {
    std::lock_guard lock(mutex_);
    auto it = pending_.find(call_id);
    if (it == pending_.end()) return nullptr;
    pending = std::move(it->second);
    pending_.erase(it);
  }
  if (pending->timer != 0) home().clock->Cancel(pending->timer);
  return pending;
}

void ClientLink::Record(const Pending& pending, Code outcome) {
  if (PeerMetrics* peer = peer_metrics()) {
    peer->calls.Record(pending.kind, outcome, home().clock->Now() - pending.began);
  }
}

void ClientLink::OnDeadline(uint64_t call_id) {
  auto pending = Take(call_id);
  if (!pending) return;
  Record(*pending, Code::kDeadlineExceeded);
  TakeBack(call_id, pending->cancel_on_deadline);
  const int64_t elapsed = home().clock->Now() - pending->began;
  bool reached;
  {
    std::lock_guard lock(mutex_);
    reached = ready_;
  }
  pending->done(Status(Code::kDeadlineExceeded,
                       StrCat(pending->operation, " on worker ", owner_.peer_name, " did not end within ",
                              elapsed / 1000000.0, " ms", reached ? "" : "; there is no connection to it yet"))
                    .WithPeer(owner_.peer_name)
                    .WithOperation(pending->operation)
                    .WithElapsed(elapsed)
                    .WithRetry(Retry::kSamePeer));
}

Status ClientLink::OnMessage(DecodedMessage message) {
  if (refused_) return OkStatus();  // it hangs up when it has read why
  if (auto* hello = std::get_if<HelloReply>(&message.message)) return OnHelloReply(*hello);
  if (!introduced_) return Status(Code::kDataLoss, StrCat(MessageName(message.message), " came before HelloReply"));
  if (auto* reply = std::get_if<Reply>(&message.message)) return Answer(reply->call_id, std::move(message));
  if (auto* ack = std::get_if<Ack>(&message.message)) return Answer(ack->call_id, std::move(message));
  if (auto* gone = std::get_if<ContextsGone>(&message.message)) return Answer(gone->call_id, std::move(message));
  if (auto* rpc = std::get_if<RpcWithAutograd>(&message.message)) {
    if (auto* reply = std::get_if<Reply>(&rpc->wrapped)) return Answer(reply->call_id, std::move(message));
  }
  if (std::holds_alternative<Goodbye>(message.message)) {
    goodbye_ = true;
    CloseConnection();
    return OkStatus();
  }
  return Status(Code::kDataLoss, StrCat("a ", MessageName(message.message), " is no answer"));
}

Status ClientLink::OnHelloReply(const HelloReply& reply) {
  if (introduced_) return Status(Code::kDataLoss, "a second HelloReply came");
  GF_RETURN_IF_ERROR(AskForPeer());
  Status status = handshake_.OnReply(reply, peer_info());
  if (status.ok()) status = owner_.introduced(reply);
  if (!status.ok()) return Refuse(std::move(status), reply.status.ok() && reply.layout >= 2);
  if (handshake_.proof()) GF_RETURN_IF_ERROR(SendMessage(*handshake_.proof()));
  SetVersion(handshake_.version(), handshake_.peer_takes_chunks());
  introduced_ = true;
  CancelIntroduction();
  return SendQueued();
}

Status ClientLink::Refuse(Status why, bool tell) {
  // Closed at once the connection might take the message with it; without a limit nobody would close it.
  const bool waits = home().liveness->introduction != kNever;
  if (!tell || !waits || !SendMessage(HelloProof{why, std::nullopt}).ok()) return why;
  refused_ = true;
  SetVerdict(why);
  Fail(Named(why));
  return OkStatus();
}

namespace {

// How the request ended that this message answers.
struct OutcomeOf {
  Code operator()(const Reply& reply) const { return reply.status.code(); }
  Code operator()(const Ack& ack) const { return ack.status.code(); }
  Code operator()(const RpcWithAutograd& rpc) const { return std::visit(*this, rpc.wrapped); }
  template <class T>
  Code operator()(const T&) const {
    return Code::kOk;
  }
};

}  // namespace

Status ClientLink::Answer(uint64_t call_id, DecodedMessage message) {
  if (auto pending = Take(call_id)) {
    Record(*pending, std::visit(OutcomeOf(), message.message));
    pending->done(std::move(message));
  }
  return OkStatus();  // an answer that nobody waits for any more is dropped
}

void ClientLink::Closed(Status status) {
  if (status.ok()) status = Status(Code::kPeerLost, "the connection was closed");
  if (!introduced_ && status.code() == Code::kPeerLost) {
    status = Status(Code::kUnavailable,
                    StrCat("the connection broke before the peer introduced itself: ", status.message()));
  }
  status = Named(status);
  owner_.closed(this, status);
  Fail(status);
}

Status ClientLink::Named(const Status& status) const {
  const bool named = status.message().rfind(PeerName(), 0) == 0;
  return Status(status.code(), named ? status.message() : StrCat(PeerName(), ": ", status.message()))
      .WithDomain(status.error()->domain)
      .WithPeer(owner_.peer_name)
      .WithRetry(Retry::kSamePeer);
}

void ClientLink::Fail(const Status& status) {
  std::vector<QueuedFrame> dropped;
  {
    std::lock_guard lock(mutex_);
    if (!closed_) closed_status_ = status;
    closed_ = true;
    dropped.swap(queued_);
  }
  FailPending(status);
}

size_t ClientLink::pending() {
  std::lock_guard lock(mutex_);
  return pending_.size();
}

bool ClientLink::ended() {
  std::lock_guard lock(mutex_);
  return closed_;
}

void ClientLink::FailPending(const Status& status) {
  std::unordered_map<uint64_t, std::unique_ptr<Pending>> pending;
  {
    std::lock_guard lock(mutex_);
    pending.swap(pending_);
  }
  const int64_t now = home().clock->Now();
  for (auto& [call_id, request] : pending) {
    if (request->timer != 0) home().clock->Cancel(request->timer);
    Record(*request, status.code());
    TakeBack(call_id, /*tell=*/false);
    request->done(status.WithOperation(request->operation).WithElapsed(now - request->began));
  }
}

}  // namespace gradferry
