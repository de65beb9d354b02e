// See server_link.h.
#include "impl/rpc/server_link.h"

#include <utility>

#include "impl/base/log.h"
#include "impl/rpc/worker.h"

namespace gradferry {

void ServerLink::Begin(std::shared_ptr<Connection> connection) {
  SetConnection(std::move(connection));
  // What is known already, for whoever never says anything; asked again when the Hello has come.
  (void)AskForPeer();
}

Status ServerLink::OnMessage(DecodedMessage message) {
  if (refused_) return OkStatus();  // the peer hangs up when it has read why
  if (auto* proof = std::get_if<HelloProof>(&message.message); proof && (introduced_ || handshake_.wants_proof())) {
    return OnProof(*proof);
  }
  if (introduced_) return OnRequest(std::move(message));
  const bool proving = handshake_.wants_proof();
  if (auto* hello = std::get_if<Hello>(&message.message); hello && !proving) return OnHello(*hello);
  return Status(Code::kUnauthenticated,
                StrCat("a ", MessageName(message.message), " came before ", proving ? "HelloProof" : "Hello"));
}

Status ServerLink::OnHello(const Hello& hello) {
  GF_RETURN_IF_ERROR(AskForPeer());
  hello_ = hello;
  peer_name_ = hello.name;
  HelloReply reply = handshake_.OnHello(hello, peer_info());
  if (reply.status.ok()) reply.status = worker_->MayEnter(hello);
  if (reply.status.ok() && !handshake_.wants_proof()) reply.status = worker_->Enter(hello, shared_from_this());
  if (!reply.status.ok()) {
    reply.proof.reset();
    refused_ = true;
    LogRefusal(reply.status);
  } else if (!handshake_.wants_proof()) {
    Admitted();
  }
  GF_RETURN_IF_ERROR(SendMessage(reply));
  if (introduced_) SetVersion(handshake_.version(), handshake_.peer_takes_chunks());
  return OkStatus();
}

Status ServerLink::OnProof(const HelloProof& proof) {
  if (introduced_ && proof.status.ok()) return Status(Code::kDataLoss, "a HelloProof came that was not asked for");
  Status status = handshake_.OnProof(proof);
  if (status.ok()) status = worker_->Enter(hello_, shared_from_this());
  if (!status.ok()) {
    rejected_ = refused_ = true;
    LogRefusal(status);
    return status;
  }
  SetVersion(handshake_.version(), handshake_.peer_takes_chunks());
  Admitted();
  return OkStatus();
}

void ServerLink::Admitted() {
  peer_ = hello_.id;
  SetPeerMetrics(worker_->MetricsOf(hello_.id));
  Add(peer_metrics()->accepted);
  SetAccount(worker_->AccountOf(hello_.id));
  introduced_ = true;
  CancelIntroduction();
}

void ServerLink::LogRefusal(const Status& why) const {
  Log(LogLevel::kWarning, DescribeConnection(peer_info()), peer_name_.empty() ? "" : " of worker " + peer_name_,
      " was refused: ", why.ToString());
}

std::string ServerLink::PeerName() const {
  if (introduced_) return "worker " + peer_name_;
  const std::string address = peer_info().address;
  return "an unknown peer" + (address.empty() ? "" : " at " + address);
}

void ServerLink::Record(CallKind kind, Code outcome, int64_t arrived) {
  peer_metrics()->requests.Record(kind, outcome, home().clock->Now() - arrived);
}

template <class Request>
std::function<void(Ack)> ServerLink::AckTo(const Request& request, std::shared_ptr<void> held) {
  const CallKind kind = CallKindOf(request);
  return [self = shared_from_this(), held = std::move(held), kind, call_id = request.call_id,
          arrived = home().clock->Now()](Ack ack) {
    self->Record(kind, ack.status.code(), arrived);
    ack.call_id = call_id;
    // When it cannot be sent the connection is gone, and with it the wait of the other side.
    (void)self->SendMessage(ack);
  };
}

std::function<void(Ack)> ServerLink::Traced(uint64_t call_id, std::function<void(Ack)> reply) {
  auto span = TraceSpan::Begin(worker_->trace_, "gradients", "gradients", peer_name_);
  if (!span) return reply;
  span->SetFlow(peer_, call_id, /*sent=*/false);
  return [span, reply = std::move(reply)](Ack ack) {
    span->End(CodeName(ack.status.code()));
    reply(std::move(ack));
  };
}

Status ServerLink::OnRequest(DecodedMessage decoded) {
  Message& message = decoded.message;
  const WorkerId from = peer_;
  if (auto* mark = std::get_if<MarkSendFunctions>(&message)) {
    auto reply = AckTo(*mark, decoded.held);
    worker_->engine_.OnMark(from, std::move(*mark), std::move(reply));
  } else if (auto* gradients = std::get_if<PropagateGradients>(&message)) {
    auto reply = Traced(gradients->call_id, AckTo(*gradients, decoded.held));
    worker_->engine_.OnGradients(from, std::move(*gradients), std::move(reply));
  } else if (auto* finished = std::get_if<MarkFinished>(&message)) {
    worker_->engine_.OnMarkFinished(*finished);
  } else if (auto* needed = std::get_if<MarkNeeded>(&message)) {
    auto reply = AckTo(*needed, decoded.held);
    worker_->engine_.OnNeeded(from, std::move(*needed), std::move(reply));
  } else if (auto* abort = std::get_if<AbortPass>(&message)) {
    worker_->engine_.OnAbort(from, *abort, AckTo(*abort, decoded.held));
  } else if (auto* turn = std::get_if<RequestTurn>(&message)) {
    worker_->engine_.OnRequestTurn(*turn, AckTo(*turn, decoded.held));
  } else if (auto* turn = std::get_if<EndTurn>(&message)) {
    worker_->engine_.OnEndTurn(*turn);
  } else if (auto* cleanup = std::get_if<CleanupAutogradContext>(&message)) {
    const int64_t context_id = cleanup->context_id;
    // On the pool: freeing a graph takes time.
    worker_->Post([worker = worker_, from, context_id, reply = AckTo(*cleanup, decoded.held)] {
      worker->OnCleanup(from, context_id);
      reply(Ack{});
    });
  } else if (auto* alive = std::get_if<ContextsAlive>(&message)) {
    // When it cannot be sent the connection is gone, and whoever asked asks again.
    const int64_t arrived = home().clock->Now();
    (void)SendMessage(worker_->GoneOf(*alive));
    Record(CallKind::kLease, Code::kOk, arrived);
  } else if (auto* cancel = std::get_if<Cancel>(&message)) {
    CancelRequest(cancel->call_id);
  } else if (std::holds_alternative<Goodbye>(message)) {
    goodbye_ = true;
    // After what came before it: an answer to it is that the connection ends.
    worker_->Post([worker = worker_, self = shared_from_this(), from] {
      worker->OnGoodbye(from);
      self->CloseConnection();
    });
  } else if (std::holds_alternative<Call>(message) ||
             (std::holds_alternative<RpcWithAutograd>(message) &&
              std::holds_alternative<Call>(std::get<RpcWithAutograd>(message).wrapped))) {
    worker_->OnCall(shared_from_this(), from, std::move(decoded));
  } else {
    return Status(Code::kDataLoss, StrCat("a ", MessageName(message), " is no request"));
  }
  return OkStatus();
}

void ServerLink::Track(uint64_t call_id, std::weak_ptr<Request> request) {
  std::lock_guard lock(mutex_);
  requests_[call_id] = std::move(request);
}

void ServerLink::Done(uint64_t call_id) {
  std::lock_guard lock(mutex_);
  requests_.erase(call_id);
}

void ServerLink::CancelRequest(uint64_t call_id) {
  (void)GiveUp(call_id);
  std::shared_ptr<Request> request;
  {
    std::lock_guard lock(mutex_);
    auto it = requests_.find(call_id);
    if (it != requests_.end()) request = it->second.lock();
  }
  if (request) request->Cancel();
}

void ServerLink::Closed(Status status) {
  std::unordered_map<uint64_t, std::weak_ptr<Request>> requests;
  {
    std::lock_guard lock(mutex_);
    requests.swap(requests_);
  }
  for (auto& [call_id, weak] : requests) {
    if (auto request = weak.lock()) request->Cancel();
  }
  const bool broke = status.ok() || status.code() == Code::kPeerLost;
  if (introduced_ && !rejected_) {
    if (!status.ok() && !goodbye_) {
      Log(LogLevel::kInfo, "the connection from ", PeerName(), " ended: ", status.ToString());
    }
  } else if (!refused_ && handshake_.wants_proof() && broke) {
    LogRefusal(Status(Code::kUnauthenticated, "it ended before the group secret (security.secret) was proven"));
  } else if (!refused_ && !broke) {
    LogRefusal(status);
  } else if (!refused_) {
    Log(LogLevel::kInfo, DescribeConnection(peer_info()), " ended before it said anything");
  }
  if (!introduced_ || rejected_) Add(home().metrics->strangers);
  auto worker = std::exchange(worker_, nullptr);
  worker->OnServerLinkClosed(this, introduced_ && !rejected_ ? peer_.load() : -1, goodbye_, status);
}

}  // namespace gradferry
