// See pass.h.
#include "impl/engine/pass.h"

#include <utility>

namespace gradferry {
namespace {

// How long one task of a pass keeps a thread of the pool before others get a turn.
constexpr std::chrono::milliseconds kSlice{5};

Ack Answer(Status status = OkStatus()) {
  Ack ack;
  ack.status = std::move(status);
  return ack;
}

}  // namespace

Pass::Pass(PassId id, bool retain_graph, std::shared_ptr<DistAutogradContext> context, EnginePeers* peers,
           PassOwner* owner, std::function<void(Status)> ended)
    : id_(id),
      retain_graph_(retain_graph),
      initiator_(id.initiator == peers->self()),
      context_(std::move(context)),
      peers_(peers),
      owner_(owner),
      ended_(std::move(ended)),
      began_(peers->clock().Now()) {
  LocalGraph::Sinks sinks;
  sinks.recv = [this](RecvRpcBackward& recv, variable_list gradients) {
    return OnRecvFunction(recv, std::move(gradients));
  };
  sinks.leaf = [this](const at::Tensor& variable, at::Tensor gradient) {
    context_->AccumulateGradient(id_, variable, std::move(gradient));
  };
  graph_.emplace(retain_graph, std::move(sinks));
  for (auto& send : context_->SendFunctions()) {
    SendState& state = sends_[send->message_id()];
    state.marked.resize(send->next_edges().size());
    unmarked_tensors_ += state.marked.size();
    state.send = std::move(send);
  }
}

Pass::~Pass() {
  // Replies that are still owed, if the worker went away under the pass: nobody may wait for ever.
  for (Event& event : inbox_) {
    if (auto* mark = std::get_if<MarkEvent>(&event)) mark->reply(Answer(Status(Code::kClosed, "the worker was closed")));
    if (auto* gradients = std::get_if<GradientsEvent>(&event)) {
      gradients->reply(Answer(Status(Code::kClosed, "the worker was closed")));
    }
  }
}

// ---- Inbox -----------------------------------------------------------------------------------------------------

bool Pass::HasEvents() {
  std::lock_guard lock(mutex_);
  return !inbox_.empty();
}

void Pass::SetDeadline(int64_t deadline) {
  if (deadline == kNever) return;
  deadline_timer_ = peers_->clock().Schedule(deadline, [weak = weak_from_this()] {
    if (auto self = weak.lock()) self->Enqueue(DeadlineEvent{});
  });
}

void Pass::Begin(PassRoots roots) { Enqueue(std::move(roots)); }
void Pass::OnMark(WorkerId from, std::vector<std::pair<int64_t, int64_t>> tensors, ReplyCallback reply) {
  Enqueue(MarkEvent{from, std::move(tensors), std::move(reply)});
}
void Pass::OnMarkFinished() { Enqueue(MarkFinishedEvent{}); }
void Pass::OnGradients(WorkerId from, int64_t message_id, variable_list gradients, ReplyCallback reply) {
  Enqueue(GradientsEvent{from, message_id, std::move(gradients), std::move(reply)});
}
void Pass::Fail(Status status) { Enqueue(FailEvent{std::move(status)}); }

void Pass::Enqueue(Event event) {
  {
    std::lock_guard lock(mutex_);
    inbox_.push_back(std::move(event));
    if (scheduled_) return;
    scheduled_ = true;
  }
  peers_->Post([self = shared_from_this()] { self->RunTask(); });
}

void Pass::RunTask() {
  try {
    RunSlice();
  } catch (...) {  // out of memory, in all likelihood; the inbox stays scheduled until the next slice
    FailNow(Here(StatusFromCurrentException()));
    peers_->Post([self = shared_from_this()] { self->RunTask(); });
  }
}

void Pass::RunSlice() {
  const auto slice_end = std::chrono::steady_clock::now() + kSlice;
  for (;;) {
    const bool handled = HandleEvents();
    if (!over_ && graph_->HasReady()) {
      if (Status status = graph_->RunOne(); !status.ok()) FailNow(Here(status));
      if (std::chrono::steady_clock::now() < slice_end) continue;
      peers_->Post([self = shared_from_this()] { self->RunTask(); });
      return;
    }
    if (handled) continue;
    if (!over_) {
      SettleRun();
      EndIfDone();
    }
    std::lock_guard lock(mutex_);
    if (!inbox_.empty()) continue;
    scheduled_ = false;
    return;
  }
}

bool Pass::HandleEvents() {
  std::deque<Event> events;
  {
    std::lock_guard lock(mutex_);
    events.swap(inbox_);
  }
  for (Event& event : events) {
    std::visit([this](auto& e) { Handle(e); }, event);
  }
  return !events.empty();
}

// ---- Events ----------------------------------------------------------------------------------------------------

void Pass::Handle(PassRoots& roots) {
  if (over_) return;
  marks_.root = true;
  run_.root = true;
  const auto reached = graph_->Start(roots.edges);
  UpdatePotential();
  SendMarks(reached);
  if (Status status = graph_->Deliver(roots.edges, std::move(roots.gradients)); !status.ok()) {
    return FailNow(Here(status));
  }
  SettleMarks();
}

void Pass::Handle(MarkEvent& event) {
  if (over_) return event.reply(Answer(*over_));
  std::vector<LocalGraph::ReachedOutput> reached;
  for (const auto& [message_id, output] : event.tensors) {
    if (Status status = Mark(message_id, output, reached); !status.ok()) {
      status = Here(status.WithPeer(peers_->NameOf(event.from)));
      event.reply(Answer(status));
      return FailNow(status);
    }
  }
  UpdatePotential();
  const bool engages = !marks_.engaged();
  SendMarks(reached);
  if (engages) {
    marks_.parent = std::move(event.reply);
  } else {
    event.reply(Answer());
  }
  SettleMarks();
}

Status Pass::Mark(int64_t message_id, int64_t output, std::vector<LocalGraph::ReachedOutput>& reached) {
  auto it = sends_.find(message_id);
  if (it == sends_.end()) {
    return FailedPrecondition(StrCat("context ", context_->id(), " has no send function ", message_id, " on worker ",
                                     peers_->NameOf(peers_->self()),
                                     ": an earlier pass without retain_graph has used it up, or the context was released"));
  }
  SendState& state = it->second;
  if (output < 0 || static_cast<size_t>(output) >= state.marked.size()) {
    return InvalidArgument(StrCat("a mark names tensor ", output, " of send function ", message_id, ", which has ",
                                  state.marked.size()));
  }
  if (state.marked[output]) return OkStatus();  // a duplicate changes nothing
  if (state.received) {
    return FailedPrecondition(StrCat("a mark for send function ", message_id, " came after its gradients"));
  }
  state.marked[output] = true;
  if (state.marked_count++ == 0) ++live_sends_;
  --unmarked_tensors_;
  const auto more = graph_->Start({state.send->next_edges()[output]});
  reached.insert(reached.end(), more.begin(), more.end());
  return OkStatus();
}

void Pass::Handle(GradientsEvent& event) {
  if (over_) return event.reply(Answer(*over_));
  auto it = sends_.find(event.message_id);
  Status status;
  if (it == sends_.end() || !it->second.live()) {
    status = FailedPrecondition(StrCat("gradients came for send function ", event.message_id, " of context ",
                                       context_->id(), ", which was not marked in this pass"));
  } else {
    status = TakeGradients(it->second, std::move(event.gradients));
  }
  if (!status.ok()) {
    status = Here(status.WithPeer(peers_->NameOf(event.from)).WithOperation("SendRpcBackward"));
    event.reply(Answer(status));
    return FailNow(status);
  }
  if (run_.engaged()) {
    event.reply(Answer());
  } else {
    run_.parent = std::move(event.reply);
  }
}

Status Pass::TakeGradients(SendState& state, variable_list gradients) {
  SendRpcBackward& send = *state.send;
  if (state.received) {
    return FailedPrecondition(StrCat("gradients came twice for send function ", send.message_id(), " of context ",
                                     context_->id()));
  }
  if (gradients.size() != state.marked.size()) {
    return InvalidArgument(StrCat(gradients.size(), " gradients came for send function ", send.message_id(),
                                  " of context ", context_->id(), ", which has ", state.marked.size(), " tensors"));
  }
  state.received = true;
  ++received_;
  // Marks come before gradients, so that this is final.
  if (!retain_graph_ && state.all_live()) used_up_.push_back(send.message_id());
  try {
    variable_list inputs = RunPreHooks(send, {});
    send.SetGradients(std::move(gradients));
    gradients = RunPostHooks(send, send.apply(std::move(inputs)), {});
  } catch (...) {
    return StatusFromCurrentException();
  }
  edge_list edges;
  variable_list live;
  for (size_t i = 0; i < state.marked.size(); ++i) {
    if (state.marked[i]) {
      edges.push_back(send.next_edges()[i]);
      live.push_back(std::move(gradients[i]));
    } else if (gradients[i].defined()) {
      return InvalidArgument(StrCat("a gradient came for tensor ", i, " of send function ", send.message_id(),
                                    ", which was not marked in this pass"));
    }
  }
  return graph_->Deliver(edges, std::move(live));
}

void Pass::Handle(AckEvent& event) {
  Wave& wave = event.mark ? marks_ : run_;
  --wave.deficit;
  if (--unanswered_[event.from] == 0) unanswered_.erase(event.from);
  if (over_) return;
  const Status& status = event.ack.ok() ? event.ack->status : event.ack.status();
  if (!status.ok()) return FailNow(Here(status.WithPeer(peers_->NameOf(event.from))));
  if (event.mark) {
    waiting_.insert(event.ack->waiting.begin(), event.ack->waiting.end());
    SettleMarks();
  }
}

void Pass::Handle(MarkFinishedEvent&) {
  if (over_) return;
  marking_finished_ = true;
  UpdatePotential();
}

void Pass::Handle(DeadlineEvent&) {
  if (over_) return;
  const std::string message = StrCat("the pass did not end before its deadline; it waits for ", WaitsFor());
  FailNow(Here(Status(Code::kDeadlineExceeded, message))
              .WithOperation("backward")
              .WithElapsed(peers_->clock().Now() - began_));
}

void Pass::Handle(FailEvent& event) { FailNow(Here(event.status)); }

// ---- Marking and running ---------------------------------------------------------------------------------------

void Pass::SendMarks(const std::vector<LocalGraph::ReachedOutput>& reached) {
  std::map<WorkerId, MarkSendFunctions> by_peer;
  for (const auto& [recv, output] : reached) {
    MarkSendFunctions& mark = by_peer[recv->from()];
    mark.message_ids.push_back(recv->message_id());
    mark.outputs.push_back(output);
  }
  for (auto& [peer, mark] : by_peer) {
    mark.context_id = context_->id();
    mark.pass = id_;
    mark.retain_graph = retain_graph_;
    SendTo(peer, /*mark=*/true, std::move(mark));
  }
}

Status Pass::OnRecvFunction(RecvRpcBackward& recv, variable_list gradients) {
  PropagateGradients message;
  message.context_id = context_->id();
  message.pass = id_;
  message.message_id = recv.message_id();
  message.retain_graph = retain_graph_;
  message.gradients = std::move(gradients);
  SendTo(recv.from(), /*mark=*/false, std::move(message));
  return OkStatus();
}

void Pass::SendTo(WorkerId to, bool mark, Message message) {
  ++(mark ? marks_ : run_).deficit;
  ++unanswered_[to];
  contacted_.insert(to);
  peers_->Send(to, std::move(message), [self = shared_from_this(), mark, to](Result<Ack> ack) {
    self->Enqueue(AckEvent{mark, to, std::move(ack)});
  });
}

bool Pass::HasUnmarked() const { return !marking_finished_ && unmarked_tensors_ > 0; }

void Pass::UpdatePotential() {
  std::vector<NodePtr> potential;
  if (HasUnmarked()) {
    for (const auto& [id, state] : sends_) {
      if (state.all_live()) continue;
      const edge_list& edges = state.send->next_edges();
      for (size_t i = 0; i < edges.size(); ++i) {
        if (!state.marked[i] && edges[i].is_valid()) potential.push_back(edges[i].function);
      }
    }
  }
  graph_->SetPotential(std::move(potential));
}

void Pass::SettleMarks() {
  if (over_ || marks_.deficit != 0 || !marks_.engaged()) return;
  if (!marks_.root) {
    Ack ack = Answer();
    if (HasUnmarked()) waiting_.insert(peers_->self());
    ack.waiting.assign(waiting_.begin(), waiting_.end());
    waiting_.clear();
    std::exchange(marks_.parent, nullptr)(std::move(ack));
    return;
  }
  if (marking_finished_) return;
  marking_finished_ = true;
  UpdatePotential();
  for (WorkerId worker : std::exchange(waiting_, {})) {
    if (worker == peers_->self()) continue;
    contacted_.insert(worker);
    peers_->Send(worker, MarkFinished{context_->id(), id_}, nullptr);
  }
}

void Pass::SettleRun() {
  if (run_.deficit != 0 || run_.parent == nullptr || graph_->HasHeldBack()) return;
  // Before the answer: when the initiator has all of them, what was used up is gone everywhere.
  context_->RemoveSendFunctions(std::exchange(used_up_, {}));
  std::exchange(run_.parent, nullptr)(Answer());
}

void Pass::EndIfDone() {
  if (run_.deficit != 0 || marks_.deficit != 0 || graph_->HasHeldBack()) return;
  if (initiator_) {
    if (!run_.root || !marking_finished_) return;
    if (received_ != live_sends_) {
      return FailNow(Internal(StrCat("the pass came to rest while ", live_sends_ - received_,
                                     " send functions of worker ", peers_->NameOf(id_.initiator),
                                     " still wait for gradients")));
    }
  } else if (marks_.engaged() || run_.engaged() || received_ != live_sends_) {
    return;
  }
  context_->RemoveSendFunctions(std::exchange(used_up_, {}));
  End(OkStatus());
}

// ---- The end ---------------------------------------------------------------------------------------------------

Status Pass::Here(const Status& status) const {
  return status.WithDomain("autograd").WithWorker(peers_->NameOf(peers_->self()));
}

void Pass::FailNow(const Status& status) {
  if (over_) return;
  over_ = status;
  for (Wave* wave : {&marks_, &run_}) {
    if (wave->parent) std::exchange(wave->parent, nullptr)(Answer(status));
  }
  for (WorkerId worker : contacted_) {
    if (worker == peers_->self()) continue;
    peers_->Send(worker, AbortPass{0, context_->id(), id_, status}, nullptr);
  }
  End(status);
}

void Pass::End(const Status& status) {
  if (!owner_->Retire(*this, status)) return;
  over_ = status.ok() ? FailedPrecondition("the pass has ended") : status;
  if (deadline_timer_ != 0) peers_->clock().Cancel(deadline_timer_);
  // The graph's memory is freed here, not when the last Ack has come: the sinks hold nothing but this.
  LocalGraph::Sinks none;
  graph_.emplace(retain_graph_, std::move(none));
  sends_.clear();
  live_.reset();  // a peer that stands still may keep this object for long
  if (auto ended = std::exchange(ended_, nullptr)) ended(status);
}

std::string Pass::WaitsFor() const {
  std::string text;
  auto add = [&text](const std::string& item) { text += (text.empty() ? "" : ", ") + item; };
  for (const auto& [worker, count] : unanswered_) {
    add(StrCat("worker ", peers_->NameOf(worker), " (", count, " unanswered)"));
  }
  size_t listed = 0;
  for (const auto& [id, state] : sends_) {
    if (!state.live() || state.received) continue;
    if (++listed > 5) continue;
    add(StrCat("gradients from worker ", peers_->NameOf(state.send->to()), " for send function ", id));
  }
  if (listed > 5) add(StrCat("and ", listed - 5, " more"));
  return text.empty() ? "its own nodes" : text;
}

}  // namespace gradferry
