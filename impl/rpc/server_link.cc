// See server_link.h.
#include "impl/rpc/server_link.h"

#include <utility>

#include "impl/base/log.h"
#include "impl/rpc/worker.h"

namespace gradferry {

Status ServerLink::OnMessage(DecodedMessage message) {
  if (refused_) return OkStatus();  // the peer hangs up when it has read why
  if (!introduced_) {
    if (auto* hello = std::get_if<Hello>(&message.message)) return OnHello(*hello);
    return Status(Code::kUnauthenticated, StrCat("a ", MessageName(message.message), " came before Hello"));
  }
  return OnRequest(std::move(message));
}

Status ServerLink::OnHello(const Hello& hello) {
  HelloReply reply = worker_->Introduce(hello);
  if (reply.status.ok()) reply.status = worker_->OnServerLinkReady(shared_from_this());
  if (reply.status.ok()) {
    peer_ = hello.id;
    peer_name_ = hello.name;
    introduced_ = true;
    CancelIntroduction();
  } else {
    refused_ = true;
    Log(LogLevel::kWarning, "refused a connection of ", hello.name, ": ", reply.status.ToString());
  }
  return SendMessage(reply);
}

std::string ServerLink::PeerName() const { return introduced_ ? "worker " + peer_name_ : "an unknown peer"; }

std::function<void(Ack)> ServerLink::AckTo(uint64_t call_id) {
  return [self = shared_from_this(), call_id](Ack ack) {
    ack.call_id = call_id;
    // When it cannot be sent the connection is gone, and with it the wait of the other side.
    (void)self->SendMessage(ack);
  };
}

Status ServerLink::OnRequest(DecodedMessage decoded) {
  Message& message = decoded.message;
  const WorkerId from = peer_;
  if (auto* mark = std::get_if<MarkSendFunctions>(&message)) {
    auto reply = AckTo(mark->call_id);
    worker_->engine_.OnMark(from, std::move(*mark), std::move(reply));
  } else if (auto* gradients = std::get_if<PropagateGradients>(&message)) {
    auto reply = AckTo(gradients->call_id);
    worker_->engine_.OnGradients(from, std::move(*gradients), std::move(reply));
  } else if (auto* finished = std::get_if<MarkFinished>(&message)) {
    worker_->engine_.OnMarkFinished(*finished);
  } else if (auto* needed = std::get_if<MarkNeeded>(&message)) {
    auto reply = AckTo(needed->call_id);
    worker_->engine_.OnNeeded(from, std::move(*needed), std::move(reply));
  } else if (auto* abort = std::get_if<AbortPass>(&message)) {
    worker_->engine_.OnAbort(from, *abort, AckTo(abort->call_id));
  } else if (auto* turn = std::get_if<RequestTurn>(&message)) {
    worker_->engine_.OnRequestTurn(*turn, AckTo(turn->call_id));
  } else if (auto* turn = std::get_if<EndTurn>(&message)) {
    worker_->engine_.OnEndTurn(*turn);
  } else if (auto* cleanup = std::get_if<CleanupAutogradContext>(&message)) {
    const int64_t context_id = cleanup->context_id;
    // On the pool: freeing a graph takes time.
    worker_->Post([worker = worker_, from, context_id, reply = AckTo(cleanup->call_id)] {
      worker->OnCleanup(from, context_id);
      reply(Ack{});
    });
  } else if (auto* alive = std::get_if<ContextsAlive>(&message)) {
    // When it cannot be sent the connection is gone, and whoever asked asks again.
    (void)SendMessage(worker_->GoneOf(*alive));
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
  if (!status.ok() && !goodbye_) {
    Log(LogLevel::kInfo, "the connection from ", PeerName(), " ended: ", status.ToString());
  }
  auto worker = std::exchange(worker_, nullptr);
  worker->OnServerLinkClosed(this, introduced_ ? peer_.load() : -1, goodbye_, status);
}

}  // namespace gradferry
