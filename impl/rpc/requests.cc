// Calls of peers: who handles them, where that runs, and how the answer goes back.
#include <algorithm>
#include <optional>
#include <utility>

#include "impl/base/no_waiting.h"
#include "impl/rpc/server_link.h"
#include "impl/rpc/worker.h"
#include "impl/rpc/wrapping.h"
#include "impl/tensor/quick_operators.h"
#include "impl/trace/recording.h"
#include "impl/wire/utf8.h"

namespace gradferry {

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
