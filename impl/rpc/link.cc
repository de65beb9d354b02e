// See link.h.
#include "impl/rpc/link.h"

#include <numeric>
#include <utility>

#include "impl/base/log.h"

namespace gradferry {
namespace {

// A hello has no tensors and is small; more from a stranger is refused before anything is allocated.
constexpr size_t kMaxHelloBytes = 4096;

OutFrame ToOutFrame(EncodedFrame frame) {
  OutFrame out;
  out.header = std::move(frame.header);
  out.segments.reserve(frame.segments.size());
  for (const FrameSegment& segment : frame.segments) out.segments.push_back({segment.data, segment.length});
  out.owner = std::move(frame.owner);
  return out;
}

}  // namespace

// ---- Link --------------------------------------------------------------------------------------------------------

Status Link::OnDescriptor(std::string_view header, std::vector<Segment>& segments) {
  if (!reason_.ok()) return reason_;
  if (!Introduced() && (!segments.empty() || header.size() > kMaxHelloBytes)) {
    return reason_ = Status(Code::kUnauthenticated, "the peer sent data before it introduced itself");
  }
  std::vector<uint64_t> lengths;
  lengths.reserve(segments.size());
  for (const Segment& segment : segments) lengths.push_back(segment.length);
  if (reason_ = CheckSeal(header); !reason_.ok()) return reason_;
  auto decoder = FrameDecoder::New(header.substr(0, header.size() - kSealBytes), lengths, *limits_);
  if (!decoder.ok()) return reason_ = decoder.status();
  decoder_ = std::move(*decoder);
  Add(metrics_->bytes_received, std::accumulate(lengths.begin(), lengths.end(), uint64_t{header.size()}));
  const auto& targets = decoder_->segments();
  for (size_t i = 0; i < segments.size(); ++i) segments[i].data = targets[i].data;
  return OkStatus();
}

Status Link::CheckSeal(std::string_view header) {
  const auto seal = ReadSeal(header);
  if (!seal.ok()) {
    // Another version of the protocol may have no seal, or another one.
    const auto version = FrameDecoder::New(header, {}, *limits_);
    if (next_in_ == 0 && version.status().code() == Code::kUnsupported) return version.status();
    return Status(Code::kDataLoss, StrCat("frame ", next_in_, " of the connection from ", PeerName(), " is damaged: ",
                                          seal.status().message()));
  }
  seal_ = *seal;
  duplicate_ = seal_.sequence < next_in_;
  if (seal_.sequence <= next_in_) return OkStatus();
  return Status(Code::kDataLoss, StrCat("frame ", next_in_, " of the connection from ", PeerName(),
                                        " is missing: frame ", seal_.sequence, " came"));
}

Status Link::CheckSegments(const FrameDecoder& decoder) const {
  if (!seal_.segments) return OkStatus();
  const uint32_t actual = SegmentsChecksum(decoder.segments());
  if (actual == *seal_.segments) return OkStatus();
  return Status(Code::kDataLoss,
                StrCat("the tensors of frame ", seal_.sequence, " of the connection from ", PeerName(),
                       " are damaged: their checksum is ", actual, ", their sender computed ", *seal_.segments));
}

void Link::OnFrame(Status status) {
  const auto decoder = std::exchange(decoder_, nullptr);
  if (!status.ok() || !reason_.ok() || !decoder) return;  // OnClosed follows
  if (duplicate_) {
    Add(metrics_->frames_duplicate);
    return Log(LogLevel::kDebug, "frame ", seal_.sequence, " of the connection from ", PeerName(),
               " came again and was dropped");
  }
  ++next_in_;
  Add(metrics_->frames_received);
  reason_ = CheckSegments(*decoder);
  if (reason_.ok()) {
    auto message = decoder->Finish();
    if (message.ok()) UnwrapProfiling(*message);
    reason_ = message.ok() ? OnMessage(std::move(*message)) : message.status();
  }
  if (!reason_.ok()) CloseConnection();
}

void Link::OnClosed(Status status) {
  {
    std::lock_guard lock(connection_mutex_);
    connection_ = nullptr;
  }
  if (!reason_.ok()) status = reason_;
  Closed(status);
}

Status Link::SendMessage(const Message& message, const std::vector<bool>& record_grad) {
  GF_ASSIGN_OR_RETURN(EncodedFrame frame, EncodeFrame(message, record_grad, *limits_));
  return SendFrame(std::move(frame));
}

Status Link::SendFrame(EncodedFrame frame) {
  std::shared_ptr<Connection> connection;
  {
    std::lock_guard lock(connection_mutex_);
    connection = connection_;
  }
  if (!connection) return Status(Code::kPeerLost, "the connection has ended");
  const auto owner = frame.owner;  // so that nothing of it is freed under the lock
  std::lock_guard lock(send_mutex_);
  AppendSeal(frame.header, {next_out_, frame.checksum});
  uint64_t bytes = frame.header.size();
  for (const FrameSegment& segment : frame.segments) bytes += segment.length;
  GF_RETURN_IF_ERROR(connection->Send(ToOutFrame(std::move(frame))));
  ++next_out_;
  Add(metrics_->frames_sent);
  Add(metrics_->bytes_sent, bytes);
  return OkStatus();
}

void Link::CloseConnection() {
  std::shared_ptr<Connection> connection;
  {
    std::lock_guard lock(connection_mutex_);
    connection = connection_;
  }
  if (connection) connection->Close();
}

void Link::SetConnection(std::shared_ptr<Connection> connection) {
  std::lock_guard lock(connection_mutex_);
  connection_ = std::move(connection);
}

// ---- ClientLink --------------------------------------------------------------------------------------------------

Status ClientLink::Begin(std::shared_ptr<Connection> connection, const Hello& hello) {
  GF_ASSIGN_OR_RETURN(EncodedFrame frame, EncodeFrame(hello, {}, limits()));
  SetConnection(std::move(connection));
  // When it cannot be sent the connection has ended already, and Closed tells why.
  (void)SendFrame(std::move(frame));
  return OkStatus();
}

Status ClientLink::SendOrQueue(EncodedFrame frame) {
  {
    std::lock_guard lock(mutex_);
    if (closed_) return closed_status_;
    if (!ready_) {
      queued_.push_back(std::move(frame));
      return OkStatus();
    }
  }
  return SendFrame(std::move(frame));
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
  void operator()(RpcWithAutograd& rpc) const { std::visit(*this, rpc.wrapped); }
  void operator()(RpcWithProfiling& rpc) const { std::visit(*this, rpc.wrapped); }
  template <class T>
  void operator()(T&) const {}
};

}  // namespace

Result<uint64_t> ClientLink::Request(OutRequest request, AnswerCallback done) {
  const uint64_t call_id = next_call_id_.fetch_add(1, std::memory_order_relaxed);
  std::visit(SetCallId{call_id}, request.message);
  GF_ASSIGN_OR_RETURN(EncodedFrame frame, EncodeFrame(request.message, request.record_grad, limits()));
  auto pending = std::make_unique<Pending>();
  pending->done = std::move(done);
  pending->operation = std::move(request.operation);
  pending->began = owner_.clock->Now();
  pending->cancel_on_deadline = request.cancel_on_deadline;
  {
    std::lock_guard lock(mutex_);
    if (closed_) return closed_status_;
    if (pending_.size() >= owner_.max_requests) {
      return Status(Code::kResourceExhausted, StrCat("limits.calls_per_peer: ", pending_.size(),
                                                     " calls to worker ", owner_.peer_name, " wait for their answers"))
          .WithPeer(owner_.peer_name)
          .WithOperation(pending->operation)
          .WithRetry(Retry::kSamePeer);
    }
    if (request.deadline != kNever) {
      // Under the lock, so that the timer cannot fire before the request is there.
      pending->timer = owner_.clock->Schedule(request.deadline, [weak = weak_from_this(), call_id] {
        if (auto self = weak.lock()) self->OnDeadline(call_id);
      });
    }
    pending_[call_id] = std::move(pending);
  }
  if (Status status = SendOrQueue(std::move(frame)); !status.ok()) {
    if (auto taken = Take(call_id)) return status.WithPeer(owner_.peer_name).WithOperation(taken->operation);
    // Its `done` has been called, by Closed.
  }
  return call_id;
}

Status ClientLink::Notify(const Message& message) {
  GF_ASSIGN_OR_RETURN(EncodedFrame frame, EncodeFrame(message, {}, limits()));
  return SendOrQueue(std::move(frame));
}

bool ClientLink::Abandon(uint64_t call_id, bool tell) {
  if (!Take(call_id)) return false;
  if (tell) (void)Notify(Cancel{call_id});  // when it cannot be told it knows from the connection
  return true;
}

void ClientLink::SayGoodbye(const std::string& reason) { (void)Notify(Goodbye{reason}); }

std::unique_ptr<ClientLink::Pending> ClientLink::Take(uint64_t call_id) {
  std::unique_ptr<Pending> pending;
  {
    std::lock_guard lock(mutex_);
    auto it = pending_.find(call_id);
    if (it == pending_.end()) return nullptr;
    pending = std::move(it->second);
    pending_.erase(it);
  }
  if (pending->timer != 0) owner_.clock->Cancel(pending->timer);
  return pending;
}

void ClientLink::OnDeadline(uint64_t call_id) {
  auto pending = Take(call_id);
  if (!pending) return;
  if (pending->cancel_on_deadline) (void)Notify(Cancel{call_id});
  const int64_t elapsed = owner_.clock->Now() - pending->began;
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
  if (auto* hello = std::get_if<HelloReply>(&message.message)) {
    if (introduced_) return Status(Code::kDataLoss, "a second HelloReply came");
    GF_RETURN_IF_ERROR(hello->status);
    GF_RETURN_IF_ERROR(owner_.introduced(*hello));
    introduced_ = true;
    std::lock_guard lock(mutex_);
    for (EncodedFrame& frame : queued_) GF_RETURN_IF_ERROR(SendFrame(std::move(frame)));
    queued_.clear();
    ready_ = true;
    return OkStatus();
  }
  if (!introduced_) return Status(Code::kDataLoss, StrCat(MessageName(message.message), " came before HelloReply"));
  if (auto* reply = std::get_if<Reply>(&message.message)) return Answer(reply->call_id, std::move(message));
  if (auto* ack = std::get_if<Ack>(&message.message)) return Answer(ack->call_id, std::move(message));
  if (auto* rpc = std::get_if<RpcWithAutograd>(&message.message)) {
    if (auto* reply = std::get_if<Reply>(&rpc->wrapped)) return Answer(reply->call_id, std::move(message));
  }
  if (std::holds_alternative<Goodbye>(message.message)) {
    CloseConnection();
    return OkStatus();
  }
  return Status(Code::kDataLoss, StrCat("a ", MessageName(message.message), " is no answer"));
}

Status ClientLink::Answer(uint64_t call_id, DecodedMessage message) {
  if (auto pending = Take(call_id)) pending->done(std::move(message));
  return OkStatus();  // an answer that nobody waits for any more is dropped
}

void ClientLink::Closed(Status status) {
  if (status.ok()) status = Status(Code::kPeerLost, "the connection was closed");
  if (!introduced_ && status.code() == Code::kPeerLost) {
    status = Status(Code::kUnavailable, StrCat("the connection broke before the peer introduced itself: ", status.message()));
  }
  status = Status(status.code(), StrCat("worker ", owner_.peer_name, ": ", status.message()))
               .WithDomain(status.error()->domain)
               .WithPeer(owner_.peer_name)
               .WithRetry(Retry::kSamePeer);
  owner_.closed(this, status);
  Fail(status);
}

void ClientLink::Fail(const Status& status) {
  {
    std::lock_guard lock(mutex_);
    if (!closed_) closed_status_ = status;
    closed_ = true;
    queued_.clear();
  }
  FailPending(status);
}

void ClientLink::FailPending(const Status& status) {
  std::unordered_map<uint64_t, std::unique_ptr<Pending>> pending;
  {
    std::lock_guard lock(mutex_);
    pending.swap(pending_);
  }
  const int64_t now = owner_.clock->Now();
  for (auto& [call_id, request] : pending) {
    if (request->timer != 0) owner_.clock->Cancel(request->timer);
    request->done(status.WithOperation(request->operation).WithElapsed(now - request->began));
  }
}

}  // namespace gradferry
