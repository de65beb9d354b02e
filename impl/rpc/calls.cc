// Worker's calls, both ways: how a call becomes a message within its context, and what happens to one that arrives.
#include <map>
#include <optional>
#include <type_traits>
#include <utility>

#include "impl/base/log.h"
#include "impl/base/no_waiting.h"
#include "impl/rpc/server_link.h"
#include "impl/rpc/worker.h"
#include "impl/tensor/quick_operators.h"
#include "impl/trace/recording.h"
#include "impl/wire/utf8.h"

namespace gradferry {
namespace {

// Of a CallSpec or a Call.
template <class Target>
std::string TargetName(const Target& target) {
  return target.overload.empty() ? target.name : target.name + "." + target.overload;
}

// Tensors of a message that require grad, and which of all its tensors those are.
std::vector<at::Tensor> RecordedTensors(Message& message, std::vector<bool>& which) {
  std::vector<at::Tensor> recorded;
  for (const at::Tensor* tensor : MessageTensors(message)) {
    const bool record = tensor->defined() && tensor->requires_grad();
    which.push_back(record);
    if (record) recorded.push_back(*tensor);
  }
  return recorded;
}

}  // namespace

Result<Worker::Wrapped> Worker::Wrap(std::variant<Call, Reply> body,
                                     const std::shared_ptr<DistAutogradContext>& context, WorkerId to, bool record) {
  Wrapped wrapped;
  const bool is_call = std::holds_alternative<Call>(body);
  std::visit([&](auto& message) { wrapped.message = std::move(message); }, body);
  if (!context) return wrapped;
  std::vector<at::Tensor> recorded;
  if (record) recorded = RecordedTensors(wrapped.message, wrapped.record_grad);
  if (recorded.empty()) {
    wrapped.record_grad.clear();
    if (!is_call) return wrapped;
    GF_RETURN_IF_ERROR(context->AddKnownWorker(to));
  } else {
    GF_ASSIGN_OR_RETURN(wrapped.message_id, container_.NewMessageId());
    GF_RETURN_IF_ERROR(context->AddSendFunction(MakeSendFunction(wrapped.message_id, to, recorded)));
  }
  RpcWithAutograd rpc;
  rpc.metadata = {context->id(), wrapped.message_id};
  if (is_call) {
    rpc.wrapped = std::get<Call>(std::move(wrapped.message));
  } else {
    rpc.wrapped = std::get<Reply>(std::move(wrapped.message));
  }
  wrapped.message = std::move(rpc);
  return wrapped;
}

namespace {

// Makes the tensors that the sender recorded the outputs of a recv function.
Status AttachRecvFunction(DecodedMessage& message, const AutogradMetadata& metadata, WorkerId from,
                          DistAutogradContext& context) {
  std::vector<at::Tensor> recorded;
  const auto tensors = MessageTensors(message.message);
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (message.requires_grad[i]) recorded.push_back(*tensors[i]);
  }
  if (recorded.empty() != (metadata.message_id == 0)) {
    return Status(Code::kDataLoss, StrCat("autograd message ", metadata.message_id, " of context ", metadata.context_id,
                                          " marks ", recorded.size(), " tensors as requiring grad"));
  }
  if (recorded.empty()) return OkStatus();
  GF_ASSIGN_OR_RETURN(auto recv, MakeRecvFunction(metadata.message_id, from, recorded));
  return context.AddRecvFunction(std::move(recv));
}

}  // namespace

namespace {

// A Call, Reply or RpcWithAutograd within an RpcWithProfiling.
Message WithProfiling(Message message, uint32_t most_events, Profile profile) {
  RpcWithProfiling rpc;
  rpc.most_events = most_events;
  rpc.profile = std::move(profile);
  std::visit(
      [&rpc](auto& inner) {
        using Inner = std::decay_t<decltype(inner)>;
        if constexpr (std::is_constructible_v<decltype(rpc.wrapped), Inner> &&
                      !std::is_same_v<Inner, RpcWithProfiling>) {
          rpc.wrapped = std::move(inner);
        }
      },
      message);
  return rpc;
}

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

}  // namespace

namespace {

struct SetTimeLeft {
  int64_t left;
  void operator()(Call& call) const { call.time_left = left; }
  void operator()(RpcWithAutograd& rpc) const { std::visit(*this, rpc.wrapped); }
  void operator()(RpcWithProfiling& rpc) const { std::visit(*this, rpc.wrapped); }
  template <class T>
  void operator()(T&) const {}
};

// What windows count: about what travels.
uint64_t TensorBytes(Message& message) {
  uint64_t bytes = 0;
  for (const at::Tensor* tensor : MessageTensors(message)) {
    if (!tensor->defined()) continue;
    const uint64_t all = tensor->numel() * tensor->element_size();
    if (tensor->layout() == at::kStrided) {
      bytes += std::min<uint64_t>(all, tensor->has_storage() ? tensor->storage().nbytes() : all);
    } else if (tensor->layout() == at::kSparse) {
      const at::Tensor indices = tensor->_indices(), values = tensor->_values();
      bytes += indices.numel() * indices.element_size() + values.numel() * values.element_size();
    }
  }
  return bytes;
}

}  // namespace

// ---- Outgoing ----------------------------------------------------------------------------------------------------

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

Result<ValueList> Worker::Unwrap(DecodedMessage message, const std::shared_ptr<DistAutogradContext>& context,
                                 WorkerId from) {
  Reply* reply = std::get_if<Reply>(&message.message);
  if (auto* rpc = std::get_if<RpcWithAutograd>(&message.message)) {
    if (!context || rpc->metadata.context_id != context->id()) {
      return Status(Code::kDataLoss, StrCat("the reply belongs to context ", rpc->metadata.context_id,
                                            ", in which the call was not made"));
    }
    GF_RETURN_IF_ERROR(AttachRecvFunction(message, rpc->metadata, from, *context));
    reply = &std::get<Reply>(rpc->wrapped);
  }
  if (reply == nullptr) return Status(Code::kDataLoss, StrCat("a ", MessageName(message.message), " answered a call"));
  if (!reply->status.ok()) return reply->status.WithWorker(NameOf(from));
  return std::move(reply->results);
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

// ---- Incoming ----------------------------------------------------------------------------------------------------

Status Worker::AddHandler(const std::string& handler_name, Handler handler) {
  if (state_ != State::kNew) GF_RETURN_IF_ERROR(CheckOpen());
  if (handler_name.empty() || handler_name.size() > limits_.name_bytes) {
    return InvalidArgument(
        StrCat("a handler's name has 1 to ", limits_.name_bytes, " bytes, not ", handler_name.size()));
  }
  std::unique_lock lock(handlers_mutex_);
  if (!handlers_.emplace(handler_name, std::make_shared<Handler>(std::move(handler))).second) {
    return Status(Code::kAlreadyExists, StrCat("worker ", name(), " has a handler ", handler_name, " already"));
  }
  return OkStatus();
}

Status Worker::RemoveHandler(const std::string& handler_name) {
  std::shared_ptr<Handler> removed;  // destroyed after the lock
  std::unique_lock lock(handlers_mutex_);
  auto it = handlers_.find(handler_name);
  if (it == handlers_.end()) return NotFound(StrCat("worker ", name(), " has no handler ", handler_name));
  removed = std::move(it->second);
  handlers_.erase(it);
  return OkStatus();
}

void Worker::OnCall(const std::shared_ptr<ServerLink>& link, WorkerId from, DecodedMessage message) {
  AutogradMetadata metadata;
  auto* rpc = std::get_if<RpcWithAutograd>(&message.message);
  Call& call = rpc ? std::get<Call>(rpc->wrapped) : std::get<Call>(message.message);
  const uint64_t call_id = call.call_id;

  Request::Facts facts;
  facts.name = call.name;
  facts.caller = from;
  facts.caller_name = NameOf(from);
  facts.record = call.record;
  facts.deadline = DeadlineAfter(clock_->Now(), std::max<int64_t>(call.time_left, 0));
  if (message.profiling) {
    const size_t most = std::min<size_t>(message.profiling->most_events, limits_.profile_events);
    facts.recorder = std::make_shared<ProfileRecorder>(ProfileEventKind::kRequest, TargetName(call), id_, most);
  }
  auto span = trace_->on() ? TraceSpan::Begin(trace_, "request", TargetName(call), facts.caller_name) : nullptr;
  if (span) span->SetFlow(from, call_id, /*sent=*/false);
  Status refused;
  if (state_ != State::kOpen) {
    refused = Status(Code::kUnavailable, StrCat("worker ", name(), " is closing")).WithRetry(Retry::kOtherPeer);
  } else if (requests_ >= static_cast<int64_t>(options_.requests)) {
    refused = Status(Code::kResourceExhausted,
                     StrCat("limits.requests: worker ", name(), " has ", requests_.load(), " requests to answer"))
                  .WithRetry(Retry::kSamePeer);
  } else if (rpc) {
    auto context = container_.GetOrCreate(rpc->metadata.context_id);
    refused = context.ok() ? AttachRecvFunction(message, rpc->metadata, from, **context) : context.status();
    if (refused.ok()) facts.context = std::move(*context);
  }

  requests_.fetch_add(1);
  BusyAdd(+1);
  const CallKind kind = call.target == CallTarget::kOperator ? CallKind::kOperator : CallKind::kHandler;
  auto respond = [self = shared_from_this(), link, call_id, facts, span, kind, held = message.held,
                  arrived = clock_->Now()](Result<ValueList> outcome) {
    link->Done(call_id);
    const char* const code = CodeName(outcome.status().code());
    link->Record(kind, outcome.status().code(), arrived);
    if (span) {  // ends before the answer is on its way, or it would not lie within the caller's event
      const Profile profile = facts.recorder ? facts.recorder->Finish() : Profile();
      span->End(code, &profile, WorkerNames(profile, [&self](int32_t worker) { return self->NameOf(worker); }));
    }
    self->requests_.fetch_sub(1);  // before the caller knows that there is room for another one
    Status status = self->Respond(link, call_id, facts, std::move(outcome));
    self->BusyAdd(-1);
    return status;
  };
  auto request = std::make_shared<Request>(std::move(facts), std::move(call.arguments), std::move(respond));
  auto refuse = [&](const Status& status) { (void)request->Fail(status); };
  if (!refused.ok()) return refuse(refused);
  link->Track(call_id, request);

  if (call.target == CallTarget::kOperator) {
    if (!allowed_.Allows(call.name)) {
      return refuse(
          Status(Code::kPermissionDenied, StrCat("operator ", call.name, " is not on the allow-list of worker ", name(),
                                                 " (security.operators_extra adds to it)")));
    }
    // What takes microseconds is not worth a change of threads.
    if (IsQuick(call.name, request->arguments())) return RunOperator(request, call.name, call.overload);
    Post([self = shared_from_this(), request, operator_name = call.name, overload = call.overload] {
      self->RunOperator(request, operator_name, overload);
    });
    return;
  }
  std::shared_ptr<Handler> handler;
  {
    std::shared_lock lock(handlers_mutex_);
    auto it = handlers_.find(call.name);
    if (it != handlers_.end()) handler = it->second;
  }
  if (!handler) return refuse(NotFound(StrCat("worker ", name(), " has no handler ", call.name)));
  if (handler->on_pool) {
    Post([handler, request = std::move(request)] {
      const Recording recording(request->facts().recorder, request->facts().name);
      handler->deliver(request);
    });
  } else if (handler->is_inline) {
    const NoWaitingScope no_waiting;
    const Recording recording(request->facts().recorder, request->facts().name);
    handler->deliver(request);
  } else {
    handler->deliver(std::move(request));
  }
}

void Worker::RunOperator(const std::shared_ptr<Request>& request, const std::string& operator_name,
                         const std::string& overload) {
  if (request->cancelled()) {
    (void)request->Fail(Status(Code::kCancelled, "the call was cancelled before it ran"));
    return;
  }
  auto op = FindOperator(operator_name, overload);
  std::optional<Recording> recording(std::in_place, request->facts().recorder);
  auto outcome = op.ok() ? (*op)->Call(request->arguments(), request->facts().record && request->facts().context)
                         : Result<ValueList>(op.status());
  recording.reset();
  if (outcome.ok()) {
    (void)request->Reply(std::move(*outcome));
  } else {
    (void)request->Fail(outcome.status());
  }
}

Result<std::shared_ptr<const Operator>> Worker::FindOperator(const std::string& operator_name,
                                                             const std::string& overload) {
  const std::string key = operator_name + "." + overload;
  {
    std::shared_lock lock(handlers_mutex_);
    auto it = operators_.find(key);
    if (it != operators_.end()) return it->second;
  }
  GF_ASSIGN_OR_RETURN(auto op, Operator::Find(operator_name, overload));
  std::unique_lock lock(handlers_mutex_);
  operators_[key] = op;
  return op;
}

namespace {

// What is left of the header for the results.
constexpr size_t kProfileShare = 4;

// The events that a reply can carry, with names as they travel: the first ones, which are nobody's children but of
// those.
Profile ToSend(Profile profile, const WireLimits& limits) {
  constexpr size_t kEventBytes = 32;
  size_t bytes = 0, count = 0;
  for (ProfileEvent& event : profile.events) {
    if (event.name.size() > limits.name_bytes || !IsUtf8(event.name))
      event.name = CleanUtf8(event.name, limits.name_bytes);
    bytes += kEventBytes + event.name.size();
    if (bytes > limits.header_bytes / kProfileShare) break;
    ++count;
  }
  profile.dropped += profile.events.size() - count;
  profile.events.resize(count);
  return profile;
}

}  // namespace

Result<EncodedFrame> Worker::EncodeReply(Message reply, const std::vector<bool>& record_grad,
                                         const Request::Facts& facts) {
  if (!facts.recorder) return EncodeFrame(reply, record_grad, limits_);
  Message profiled = WithProfiling(std::move(reply), 0, ToSend(facts.recorder->Finish(), limits_));
  auto frame = EncodeFrame(profiled, record_grad, limits_);
  Profile& profile = std::get<RpcWithProfiling>(profiled).profile;
  if (frame.ok() || frame.status().code() != Code::kResourceExhausted || profile.events.empty()) return frame;
  profile = Profile{{}, profile.dropped + profile.events.size()};
  return EncodeFrame(profiled, record_grad, limits_);
}

Status Worker::SendReply(ServerLink& link, EncodedFrame frame, uint64_t call_id) {
  struct Held {
    std::shared_ptr<void> busy, charge, memory;
  };
  // For what says that something larger could not be sent.
  constexpr uint64_t kSlack = 1 << 20;
  uint64_t bytes = frame.header.size();
  for (const FrameSegment& segment : frame.segments) bytes += segment.length;
  const bool small = frame.segments.empty();
  MemoryAccount& account = *link.account();
  Held held{small ? nullptr : KeepBusy(), account.Charge(bytes, small ? kSlack : 0), std::move(frame.owner)};
  if (!held.charge) {
    return Status(Code::kResourceExhausted,
                  StrCat("limits.memory_per_peer (", account.limit(), "): the reply has ", bytes, " bytes, and ",
                         account.used(), " are held for the peer already"));
  }
  frame.owner = std::make_shared<Held>(std::move(held));
  (void)link.SendFrame(std::move(frame), call_id);  // a lost caller needs no answer
  return OkStatus();
}

Status Worker::Respond(const std::shared_ptr<ServerLink>& link, uint64_t call_id, const Request::Facts& facts,
                       Result<ValueList> outcome) {
  Status failed;
  if (outcome.ok()) {
    Reply reply;
    reply.call_id = call_id;
    reply.results = std::move(*outcome);
    auto wrapped = Wrap(std::move(reply), facts.context, facts.caller, facts.record);
    if (wrapped.ok()) {
      auto frame = EncodeReply(std::move(wrapped->message), wrapped->record_grad, facts);
      failed = frame.ok() ? SendReply(*link, std::move(*frame), call_id) : frame.status();
      if (!failed.ok() && wrapped->message_id != 0) facts.context->RemoveSendFunctions({wrapped->message_id});
    } else {
      failed = wrapped.status();
    }
    if (failed.ok()) return OkStatus();
    failed = failed.WithOperation(facts.name);
  }
  Reply reply;
  reply.call_id = call_id;
  reply.status = (outcome.ok() ? failed : outcome.status()).WithWorker(name()).WithOperation(facts.name);
  auto frame = EncodeReply(reply, {}, facts);
  if (frame.ok()) {
    // Who takes nothing at all is not waited for.
    if (Status sent = SendReply(*link, std::move(*frame), call_id); !sent.ok()) link->CloseBecause(std::move(sent));
  } else if (frame.status().code() == Code::kResourceExhausted) {
    // The chain is too long for a frame; the caller must hear something.
    reply.status = Status(reply.status.code(), reply.status.message().substr(0, 1000)).WithWorker(name());
    (void)link->SendMessage(reply);
  }
  return failed;
}

}  // namespace gradferry
