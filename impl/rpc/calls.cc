// Worker's calls and the engine's requests on their way out: with a deadline, within windows.
#include <map>
#include <optional>
#include <utility>

#include "impl/base/log.h"
#include "impl/rpc/worker.h"
#include "impl/rpc/wrapping.h"
#include "impl/trace/recording.h"

namespace gradferry {
namespace {

// The profiling of one outgoing call; null when it is not profiled.
struct CallProfiling {
  // The call as its own first event, and what its reply brings.
  std::shared_ptr<ProfileRecorder> recorder;
  // Where it is an event of the request that it helps to answer; may be null.
  std::shared_ptr<ProfileRecorder> parent;
  uint32_t event = kNoEvent;

  Profile Finish(const Result<DecodedMessage>& answer) const {
    if (answer.ok() && answer->profiling) recorder->AddReply(answer->profiling->profile);
    Profile profile = recorder->Finish();
    if (parent) parent->EndCall(event, profile);
    return profile;
  }
};

struct SetTimeLeft {
  int64_t left;
  void operator()(Call& call) const { call.time_left = left; }
  void operator()(RpcWithAutograd& rpc) const { std::visit(*this, rpc.wrapped); }
  void operator()(RpcWithProfiling& rpc) const { std::visit(*this, rpc.wrapped); }
  template <class T>
  void operator()(T&) const {}
};

}  // namespace

Result<std::shared_ptr<Future>> Worker::StartCall(CallSpec spec) {
  // While the worker closes, requests that it still answers may call on.
  if (!spec.parent || state_ != State::kClosing) GF_RETURN_IF_ERROR(CheckOpen());
  const std::string operation = TargetName(spec);
  auto fail = [&](const Status& status) { return status.WithWorker(name()).WithOperation(operation); };
  auto to = FindPeer(spec.to, spec.to_id);
  if (!to.ok()) return fail(to.status());
  const std::string peer_name = NameOf(*to);
  const auto hold = HoldClock();
  const int64_t began = clock_->Now();
  int64_t deadline = DeadlineAfter(began, spec.timeout == 0 ? options_.call_timeout : spec.timeout);
  if (spec.parent) {
    deadline = std::min(deadline, spec.parent->facts().deadline);
    spec.record = spec.record && spec.parent->facts().record;
    if (!spec.context) spec.context = spec.parent->facts().context;
    spec.profile = spec.profile || spec.parent->facts().recorder;
  }
  if (deadline <= began) {
    return fail(Status(Code::kDeadlineExceeded, StrCat("no time is left to call worker ", peer_name)));
  }
  const CallKind kind = spec.target == CallTarget::kOperator ? CallKind::kOperator : CallKind::kHandler;
  if (auto link = LinkTo(*to); !link.ok()) {
    MetricsOf(*to)->calls.Record(kind, link.status().code(), 0);
    return fail(link.status().WithPeer(peer_name));
  }

  Call call;
  call.time_left = deadline == kNever ? kNever : deadline - began;
  call.target = spec.target;
  call.record = spec.record;
  call.name = spec.name;
  call.overload = spec.overload;
  call.arguments = std::move(spec.arguments);
  auto wrapped = Wrap(std::move(call), spec.context, *to, spec.record);
  if (!wrapped.ok()) return fail(wrapped.status());

  std::optional<CallProfiling> profiling;
  if (spec.profile) {
    profiling.emplace();
    profiling->recorder =
        std::make_shared<ProfileRecorder>(ProfileEventKind::kCall, operation, id_, limits_.profile_events);
    profiling->parent = spec.parent ? spec.parent->facts().recorder : nullptr;
    if (profiling->parent) {
      profiling->event =
          profiling->parent->Begin(ProfileEventKind::kCall, operation, Recording::CurrentEvent(*profiling->parent));
    }
    wrapped->message = WithProfiling(std::move(wrapped->message), limits_.profile_events, {});
  }
  auto span = TraceSpan::Begin(trace_, "call", operation, peer_name);

  auto future = std::make_shared<Future>();
  // Counts the call for Close until `done` below is dropped, called or not.
  auto busy = KeepBusy();
  // The call is not made; why is told by what this function returns.
  const auto give_up = [&](Departure& departure, const Status& why) {
    MetricsOf(*to)->calls.Record(kind, why.code(), clock_->Now() - began);
    if (profiling && profiling->parent) profiling->parent->End(profiling->event);
    if (span) span->End(CodeName(why.code()));
    departure.Drop();
    return fail(why);
  };
  OutRequest request;
  request.message = std::move(wrapped->message);
  request.record_grad = std::move(wrapped->record_grad);
  request.deadline = deadline;
  request.operation = operation;
  if (span) {
    request.numbered = [span, id = id_](uint64_t call_id) { span->SetFlow(id, call_id, /*sent=*/true); };
  }
  request.cancel_on_deadline = true;
  AnswerCallback done = [self = shared_from_this(), future, busy = std::move(busy), context = spec.context, from = *to,
                         operation, began, profiling, span](Result<DecodedMessage> answer) {
    std::shared_ptr<const Profile> profile;
    std::map<int32_t, std::string> names;
    if (profiling) {
      profile = std::make_shared<const Profile>(profiling->Finish(answer));
      names = WorkerNames(*profile, [&self](int32_t worker) { return self->NameOf(worker); });
      future->SetProfile([profile, names] { return ProfileJson(*profile, names); });
    }
    auto outcome = answer.ok() ? self->Unwrap(std::move(*answer), context, from) : Result<ValueList>(answer.status());
    if (span) span->End(CodeName(outcome.status().code()), profile.get(), names);
    if (outcome.ok()) {
      future->Complete(std::move(outcome));
    } else {
      future->Complete(outcome.status()
                           .WithPeer(self->NameOf(from))
                           .WithOperation(operation)
                           .WithElapsed(self->clock_->Now() - began));
    }
  };
  auto departure = std::make_shared<Departure>(*to, std::move(request), std::move(done));
  departure->future = future;
  departure->kind = kind;
  departure->began = began;
  departure->message_id = wrapped->message_id;
  if (wrapped->message_id != 0) departure->context = spec.context;

  const bool wait = spec.when_full == WhenFull::kDefault ? options_.wait_when_full : spec.when_full == WhenFull::kWait;
  const uint64_t bytes = TensorBytes(departure->request.message);
  if (bytes > kInlineBytes && !windows_->Takes(*to, bytes)) {
    return give_up(*departure, Status(Code::kResourceExhausted, StrCat("the call has ", bytes,
                                                                       " bytes of tensors, more than "
                                                                       "limits.memory_per_peer of worker ",
                                                                       peer_name))
                                   .WithPeer(peer_name));
  }
  std::string full;
  if (auto room = windows_->Take(*to, bytes, &full)) {
    const Status sent = Depart(departure, std::move(room));
    if (!sent.ok()) return give_up(*departure, sent.WithPeer(peer_name));
  } else if (wait) {
    Wait(departure, bytes);
  } else {
    return give_up(*departure, Status(Code::kResourceExhausted,
                                      StrCat("there is no room for another call to worker ", peer_name, ": ", full))
                                   .WithPeer(peer_name)
                                   .WithRetry(Retry::kSamePeer));
  }
  if (spec.parent) {
    spec.parent->OnCancel([weak = std::weak_ptr<Future>(future)] {
      if (auto running = weak.lock()) running->Cancel();
    });
  }
  return future;
}

Status Worker::Depart(const std::shared_ptr<Departure>& call, Windows::Room room) {
  auto done = std::make_shared<AnswerCallback>(std::move(call->done));
  auto sent =
      SendRequest(call->to, std::move(call->request),
                  [done, room = std::move(room)](Result<DecodedMessage> answer) { (*done)(std::move(answer)); });
  if (!sent.ok()) {
    call->done = std::move(*done);
    return sent.status();
  }
  const auto abandon = [weak = std::weak_ptr<ClientLink>(sent->link), id = sent->call_id] {
    if (auto alive = weak.lock()) alive->Abandon(id, /*tell=*/true);
  };
  if (auto future = call->future.lock()) {
    future->SetCancel(abandon);
    future->SetDriver(sent->link);
  }
  std::unique_lock lock(call->mutex);
  const bool cancelled = call->cancelled;  // before there was anything to abandon
  lock.unlock();
  if (cancelled) abandon();
  return OkStatus();
}

void Worker::Wait(const std::shared_ptr<Departure>& call, uint64_t bytes) {
  const std::weak_ptr<Departure> weak = call;
  // Set before it can go, which sets another one.
  call->future.lock()->SetCancel([weak, weak_self = weak_from_this()] {
    const auto waiting = weak.lock();
    const auto self = weak_self.lock();
    if (!waiting || !self) return;
    std::unique_lock lock(waiting->mutex);
    waiting->cancelled = true;
    const TimerId timer = std::exchange(waiting->timer, 0);
    lock.unlock();
    if (timer != 0) self->clock_->Cancel(timer);
    std::string full;
    if (!self->windows_->TakeBack(waiting->to, waiting->ticket, &full)) return;
    self->RecordUnsent(*waiting, Code::kCancelled);
    waiting->Drop();
  });
  auto granted = [self = shared_from_this(), call](Windows::Room room) {
    // On the pool: one call that fails makes room for the next, and so on.
    self->Post([self, call, room = std::move(room)]() mutable { self->DepartLate(call, std::move(room)); });
  };
  if (auto room = windows_->TakeOrWait(call->to, bytes, granted, &call->ticket)) return granted(std::move(room));
  if (call->request.deadline == kNever) return;
  const TimerId timer = clock_->Schedule(call->request.deadline, [weak, weak_self = weak_from_this()] {
    const auto waiting = weak.lock();
    const auto self = weak_self.lock();
    std::string full;
    if (!waiting || !self || !self->windows_->TakeBack(waiting->to, waiting->ticket, &full)) return;
    const int64_t elapsed = self->clock_->Now() - waiting->began;
    self->RecordUnsent(*waiting, Code::kDeadlineExceeded);
    waiting->Fail(Status(Code::kDeadlineExceeded,
                         StrCat(waiting->request.operation, " on worker ", self->NameOf(waiting->to), " waited ",
                                elapsed / 1000000.0, " ms for room and was not sent: ", full))
                      .WithRetry(Retry::kSamePeer));
  });
  std::unique_lock lock(call->mutex);
  const bool over = call->departed || call->cancelled;
  if (!over) call->timer = timer;
  lock.unlock();
  if (over) clock_->Cancel(timer);
}

void Worker::RecordUnsent(const Departure& call, Code why) {
  MetricsOf(call.to)->calls.Record(call.kind, why, clock_->Now() - call.began);
}

void Worker::DepartLate(const std::shared_ptr<Departure>& call, Windows::Room room) {
  std::unique_lock lock(call->mutex);
  call->departed = true;
  const bool cancelled = call->cancelled;
  const TimerId timer = std::exchange(call->timer, 0);
  lock.unlock();
  if (timer != 0) clock_->Cancel(timer);
  if (cancelled) {
    RecordUnsent(*call, Code::kCancelled);
    return call->Drop();
  }
  const auto fail = [&](const Status& why) {
    RecordUnsent(*call, why.code());
    call->Fail(why);
  };
  if (!room) return fail(Status(Code::kClosed, StrCat("worker ", name(), " is closed")));
  const int64_t deadline = call->request.deadline, now = clock_->Now();
  if (deadline != kNever) {
    if (deadline <= now) {
      return fail(Status(Code::kDeadlineExceeded, "the call waited for room until its time was over"));
    }
    std::visit(SetTimeLeft{deadline - now}, call->request.message);
  }
  if (Status sent = Depart(call, std::move(room)); !sent.ok()) fail(sent);
}

namespace {

AckCallback LogFailure(const char* what) {
  return [what](Result<Ack> ack) {
    if (!ack.ok()) Log(LogLevel::kDebug, what, " was not answered: ", ack.status().ToString());
  };
}

}  // namespace

void Worker::Send(WorkerId to, Message message, AckCallback done) {
  const bool one_way = done == nullptr;
  if (one_way) done = LogFailure(MessageName(message));
  auto fail = [&](const Status& status) { Post([done, status] { done(status); }); };
  if (one_way) {
    if (Status status = SendNotice(to, message); !status.ok()) fail(status.WithPeer(NameOf(to)));
    return;
  }
  auto room = windows_->Count(to, TensorBytes(message));
  OutRequest request;
  request.operation = MessageName(message);
  std::shared_ptr<TraceSpan> span;
  if (trace_->on() && std::holds_alternative<PropagateGradients>(message)) {
    span = TraceSpan::Begin(trace_, "gradients", "gradients", NameOf(to));
    if (span) request.numbered = [span, id = id_](uint64_t call_id) { span->SetFlow(id, call_id, /*sent=*/true); };
  }
  request.message = std::move(message);
  auto sent = SendRequest(to, std::move(request), [done, span, room](Result<DecodedMessage> answer) {
    if (span) span->End(CodeName(answer.status().code()));
    if (!answer.ok()) return done(answer.status());
    if (auto* ack = std::get_if<Ack>(&answer->message)) return done(std::move(*ack));
    done(Status(Code::kDataLoss, StrCat("a ", MessageName(answer->message), " came instead of an Ack")));
  });
  if (!sent.ok()) fail(sent.status().WithPeer(NameOf(to)));
}

std::function<void(Status)> Worker::WatchPart(WorkerId initiator) {
  if (!trace_->on()) return nullptr;
  auto span = TraceSpan::Begin(trace_, "pass", "part of a backward", NameOf(initiator));
  return [span](const Status& status) {
    if (span) span->End(CodeName(status.code()));
  };
}

}  // namespace gradferry
