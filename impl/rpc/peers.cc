// Worker's watch over its peers: who is silent, who is lost, and what is done then. Everything here is driven by events
// and by timers that hold the worker weakly, so that none of it keeps a worker alive.
//
// Lost. A peer is given up when it was silent for liveness.lost, when no connection with it can be made for
// liveness.interval after one has broken, or when it says goodbye. It is there again when it introduces itself.
//
// Leases. A context lives as long as the worker that made it says so. Whoever takes part in contexts of another asks it
// (ContextsAlive) every liveness.lease, and at once when a connection is lost; one question names all of its contexts.
// What is gone there, and everything of a worker that is lost, is released here and wherever it went from here.
#include <algorithm>
#include <utility>

#include "impl/base/log.h"
#include "impl/rpc/server_link.h"
#include "impl/rpc/worker.h"

namespace gradferry {
namespace {

constexpr int64_t kMillisecond = 1000000;
constexpr int64_t kSecond = 1000 * kMillisecond;
// The first pause before something is tried again; they double.
constexpr int64_t kFirstPause = 50 * kMillisecond;
// Ids of one question: a header of 32 KiB.
constexpr size_t kContextsPerQuestion = 4096;

}  // namespace

// ---- Silence -----------------------------------------------------------------------------------------------------

int64_t Worker::LookAfterPeers(int64_t now, int64_t grace) {
  if (state_ == State::kClosed) return kNever;
  std::vector<std::shared_ptr<ClientLink>> clients;
  std::vector<std::pair<std::shared_ptr<Link>, bool>> links;  // with whether somebody waits for it
  {
    std::lock_guard lock(peers_mutex_);
    for (const auto& [id, peer] : peers_) {
      if (peer.link) clients.push_back(peer.link);
    }
    for (const auto& link : server_links_) links.emplace_back(link, false);
  }
  for (const auto& link : clients) links.emplace_back(link, link->pending() > 0);
  const bool contexts = options_.liveness.lease != kNever && foreign_contexts_ > 0;
  int64_t next = contexts ? NextLeases(now) : kNever;
  if (options_.liveness.interval == kNever) return next;
  for (const auto& [link, waits] : links) {
    if (waits || contexts) {
      next = std::min(next, link->LookAfter(now, grace));
    } else {
      link->Rest();
    }
  }
  return next;
}

void Worker::OnForeignContexts(int delta) {
  foreign_contexts_.fetch_add(delta);
  if (ticker_ && options_.liveness.lease != kNever) ticker_->Add(delta);
}

int64_t Worker::UnreachableLimit() const { return std::min(options_.liveness.interval, kSecond); }

// Short at first, then as often as is needed to know within UnreachableLimit.
int64_t Worker::NextPause(int64_t pause) const {
  return std::min(std::max(2 * pause, kFirstPause), UnreachableLimit() / 4);
}

void Worker::Later(int64_t delay, std::function<void(Worker&)> task) {
  clock_->Schedule(DeadlineAfter(clock_->Now(), delay), [weak = weak_from_this(), task = std::move(task)] {
    auto self = weak.lock();
    if (!self || self->state_ == State::kClosed) return;
    // On the pool, where it may take its time and may let go of the worker.
    self->Post([self, task] { task(*self); });
  });
}

// ---- Lost --------------------------------------------------------------------------------------------------------

bool Worker::IsLost(WorkerId peer) const {
  std::lock_guard lock(peers_mutex_);
  auto it = peers_.find(peer);
  if (it == peers_.end()) return false;
  const Peer& entry = it->second;
  return entry.lost || entry.unreachable_last - entry.unreachable_since >= UnreachableLimit();
}

void Worker::OnConnectionLost(WorkerId peer, const Link& link, const Status& status) {
  if (state_ == State::kClosed || peer == id_) return;
  Add(metrics_.connections_lost);
  Add(MetricsOf(peer)->lost);
  if (link.lost()) {
    {
      std::lock_guard lock(peers_mutex_);
      peers_[peer].lost = true;
    }
    engine_.OnPeerLost(peer, status.WithPeer(NameOf(peer)));
  }
  {
    std::lock_guard lock(leases_mutex_);
    const int64_t now = clock_->Now();
    hurry_until_ = now + 10 * kSecond;
    next_leases_ = std::min(next_leases_, now + UnreachableLimit());
  }
  if (foreign_contexts_ > 0) Post([self = shared_from_this()] { self->CheckLeases(); });
}

void Worker::OnReborn(WorkerId peer) {
  engine_.OnPeerLost(peer,
                     Status(Code::kPeerLost, StrCat("worker ", NameOf(peer), " was restarted")).WithPeer(NameOf(peer)));
  if (foreign_contexts_ > 0) Post([self = shared_from_this()] { self->CheckLeases(); });
}

// ---- Leases ------------------------------------------------------------------------------------------------------

int64_t Worker::NextLeases(int64_t now) {
  {
    std::lock_guard lock(leases_mutex_);
    // Of a lost peer the contexts that it brought here go soon, when their makers have given them up.
    const int64_t period = now < hurry_until_ ? std::min(kSecond, options_.liveness.lease) : options_.liveness.lease;
    next_leases_ = std::min(next_leases_, now + period);
    if (now < next_leases_) return next_leases_;
    next_leases_ = now + period;
  }
  Post([self = shared_from_this()] { self->CheckLeases(); });
  return now + options_.liveness.lease;
}

void Worker::CheckLeases() {
  for (auto& [maker, ids] : container_.ForeignIds()) {
    {
      std::lock_guard lock(leases_mutex_);
      if (!asking_.insert(maker).second) continue;
    }
    AskMaker({maker, std::move(ids), clock_->Now()});
  }
}

void Worker::EndQuestion(WorkerId maker) {
  std::lock_guard lock(leases_mutex_);
  asking_.erase(maker);
}

void Worker::AskMaker(Question question) {
  const WorkerId maker = question.maker;
  {
    std::lock_guard lock(peers_mutex_);
    auto it = peers_.find(maker);
    // Who cannot be asked is not lost for that: the clean-up comes the way that the context came.
    if (leaving_ || it == peers_.end() || it->second.member.address.empty()) question.ids.clear();
  }
  if (question.ids.empty()) return EndQuestion(maker);
  const size_t count = std::min(question.ids.size(), kContextsPerQuestion);
  ContextsAlive message;
  message.context_ids.assign(question.ids.end() - static_cast<std::ptrdiff_t>(count), question.ids.end());
  OutRequest request;
  request.message = std::move(message);
  request.operation = "ContextsAlive";
  request.deadline = DeadlineAfter(clock_->Now(), std::min(options_.liveness.lost, 10 * kSecond));
  auto shared = std::make_shared<Question>(std::move(question));
  const auto hold = HoldClock();
  auto sent =
      SendRequest(maker, std::move(request), [weak = weak_from_this(), shared, count](Result<DecodedMessage> answer) {
        auto self = weak.lock();
        if (!self || self->state_ == State::kClosed) return;
        self->Post([self, shared, count, answer = std::move(answer)]() mutable {
          self->OnLeaseAnswer(std::move(*shared), count, std::move(answer));
        });
      });
  if (!sent.ok()) OnLeaseAnswer(std::move(*shared), count, sent.status());
}

void Worker::OnLeaseAnswer(Question question, size_t count, Result<DecodedMessage> answer) {
  if (state_ == State::kClosed) return;
  const std::string name = NameOf(question.maker);
  if (answer.ok()) {
    if (auto* gone = std::get_if<ContextsGone>(&answer->message)) {
      for (int64_t id : gone->context_ids) {
        if (WorkerOfAutogradId(id) != question.maker) continue;  // not its to say
        AbandonContext(
            id, Status(Code::kAborted, StrCat("context ", id, " was released by worker ", name, ", which made it"))
                    .WithPeer(name));
      }
    }
    question.ids.resize(question.ids.size() - count);
    question.began = clock_->Now();
    question.pause = 0;
    return AskMaker(std::move(question));
  }
  const Status& status = answer.status();
  const bool waited = DeadlineAfter(question.began, options_.liveness.lost) <= clock_->Now();
  if (status.code() == Code::kClosed) return EndQuestion(question.maker);
  if (IsLost(question.maker) || waited) {
    const Status lost =
        status.Wrap(Code::kPeerLost, StrCat("worker ", name, ", which made the context, was lost: ", status.message()))
            .WithPeer(name);
    for (int64_t id : question.ids) AbandonContext(id, lost);
    return EndQuestion(question.maker);
  }
  question.pause = NextPause(question.pause);
  const int64_t pause = question.pause;
  Later(pause, [question = std::move(question)](Worker& self) { self.AskMaker(question); });
}

ContextsGone Worker::GoneOf(const ContextsAlive& question) const {
  ContextsGone gone;
  gone.call_id = question.call_id;
  for (int64_t id : question.context_ids) {
    if (!container_.Find(id).ok()) gone.context_ids.push_back(id);
  }
  return gone;
}

void Worker::AbandonContext(int64_t context_id, const Status& status) {
  if (DropContext(context_id, status, id_)) {
    Log(LogLevel::kInfo, "context ", context_id, " is released: ", status.message());
  }
}

// ---- Clean-up ----------------------------------------------------------------------------------------------------

void Worker::OnCleanup(WorkerId from, int64_t context_id) {
  DropContext(context_id, Status(Code::kAborted, StrCat("context ", context_id, " was released")), from);
}

bool Worker::DropContext(int64_t context_id, const Status& status, WorkerId except) {
  auto context = container_.Remove(context_id);
  if (!context) return false;
  engine_.AbandonContext(context_id, status.WithDomain("autograd").WithWorker(name()));
  TellCleanup(context_id, context->Release(), except);
  return true;
}

void Worker::TellCleanup(int64_t context_id, const std::set<WorkerId>& workers, WorkerId except) {
  const int64_t until = DeadlineAfter(clock_->Now(), options_.liveness.cleanup_budget);
  for (WorkerId worker : workers) {
    if (worker != id_ && worker != except) CleanUpAt({worker, context_id, until});
  }
}

void Worker::CleanUpAt(CleanUp cleanup) {
  OutRequest request;
  request.message = CleanupAutogradContext{0, cleanup.context_id};
  request.deadline = cleanup.until;
  request.operation = "CleanupAutogradContext";
  const auto hold = HoldClock();
  auto sent = SendRequest(cleanup.worker, std::move(request),
                          [weak = weak_from_this(), cleanup](Result<DecodedMessage> answer) {
                            auto self = weak.lock();
                            if (self && !answer.ok()) self->OnCleanUpFailed(cleanup, answer.status());
                          });
  if (!sent.ok()) OnCleanUpFailed(cleanup, sent.status());
}

void Worker::OnCleanUpFailed(CleanUp cleanup, const Status& status) {
  cleanup.pause = NextPause(cleanup.pause);
  const bool again = status.code() != Code::kClosed && state_ != State::kClosed && !IsLost(cleanup.worker) &&
                     DeadlineAfter(clock_->Now(), cleanup.pause) < cleanup.until;
  if (!again) {
    Log(LogLevel::kDebug, "worker ", NameOf(cleanup.worker), " was not told that context ", cleanup.context_id,
        " was released: ", status.ToString());
    return;
  }
  Add(metrics_.cleanups_retried);
  Later(cleanup.pause, [cleanup](Worker& self) { self.CleanUpAt(cleanup); });
}

}  // namespace gradferry
