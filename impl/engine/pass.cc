// See pass.h.
#include "impl/engine/pass.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "impl/engine/current_pass.h"
#include "impl/engine/small_parts.h"
#include "impl/trace/recording.h"

namespace gradferry {
namespace {

// How long one task of a pass keeps a thread of the pool before others get a turn.
constexpr std::chrono::milliseconds kSlice{5};
// How long one keeps a thread that has brought an event.
constexpr std::chrono::microseconds kSliceHere{100};

Ack Answer(Status status = OkStatus()) {
  Ack ack;
  ack.status = std::move(status);
  return ack;
}

}  // namespace

Pass::Pass(const PassKind& kind, std::shared_ptr<DistAutogradContext> context, EnginePeers* peers, PassOwner* owner,
           std::function<void(Status)> ended)
    : kind_(kind),
      initiator_(kind.id.initiator == peers->self()),
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
    context_->AccumulateGradient(kind_.turn, variable, std::move(gradient));
  };
  graph_.emplace(kind_.retain_graph, kind_.chosen_inputs, std::move(sinks));
  if (!initiator_) stage_ = Stage::kMarking;
  for (auto& send : context_->SendFunctions()) {
    SendState& state = sends_[send->message_id()];
    state.marked.resize(send->next_edges().size());
    state.needed.resize(state.marked.size());
    state.chosen = kind_.chosen_inputs;
    // With chosen inputs nothing runs before all that is decided.
    if (!kind_.chosen_inputs) graph_->AddPotential(send->next_edges());
    unmarked_tensors_ += state.marked.size();
    if (HasHooks(*send) || !LeadsToFew(send->next_edges(), &small_)) small_ = -1;
    state.send = std::move(send);
  }
}

Pass::~Pass() {
  // Replies that are still owed, if the worker went away under the pass: nobody may wait for ever.
  for (Event& event : inbox_) {
    if (auto* needed = std::get_if<NeededEvent>(&event)) {
      needed->reply(Answer(Status(Code::kClosed, "the worker was closed")));
    }
    if (auto* mark = std::get_if<MarkEvent>(&event))
      mark->reply(Answer(Status(Code::kClosed, "the worker was closed")));
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

std::set<WorkerId> Pass::Contacted() {
  std::lock_guard lock(mutex_);
  return contacted_;
}

void Pass::SetDeadline(int64_t deadline) {
  deadline_ = deadline;
  if (deadline == kNever) return;
  deadline_timer_ = peers_->clock().Schedule(deadline, [weak = weak_from_this()] {
    if (auto self = weak.lock()) self->Enqueue(DeadlineEvent{}, nullptr);
  });
}

void Pass::Begin(PassRoots roots, Later& later) {
  if (!LeadsToFew(roots.edges, &small_)) small_ = -1;
  Enqueue(std::move(roots), &later);
}
void Pass::OnMark(WorkerId from, std::vector<std::pair<int64_t, int64_t>> tensors, ReplyCallback reply, Later& later) {
  Enqueue(MarkEvent{from, std::move(tensors), std::move(reply)}, &later);
}
void Pass::OnNeeded(WorkerId from, std::vector<std::pair<int64_t, int64_t>> tensors, ReplyCallback reply,
                    Later& later) {
  Enqueue(NeededEvent{from, std::move(tensors), std::move(reply)}, &later);
}
void Pass::OnMarkFinished(Later& later) { Enqueue(MarkFinishedEvent{}, &later); }
void Pass::OnPeerLost(WorkerId lost, Status status) { Enqueue(PeerLostEvent{lost, std::move(status)}, nullptr); }
void Pass::InnerEnded() { Enqueue(InnerEndedEvent{}, nullptr); }
void Pass::OnGradients(WorkerId from, int64_t message_id, variable_list gradients, ReplyCallback reply, Later& later) {
  Enqueue(GradientsEvent{from, message_id, std::move(gradients), std::move(reply)}, &later);
}

void Pass::Fail(Status status) {
  std::vector<std::shared_ptr<Pass>> inner;
  {
    std::lock_guard lock(mutex_);
    for (const auto& weak : inner_passes_) {
      if (auto pass = weak.lock()) inner.push_back(std::move(pass));
    }
  }
  // First: this part's thread may wait for them.
  for (const auto& pass : inner) pass->Fail(status);
  Enqueue(FailEvent{std::move(status)}, nullptr);
}

void Pass::AddGradient(const at::Tensor& tensor, at::Tensor gradient) {
  context_->AccumulateGradient(kind_.turn, tensor, std::move(gradient));
}

void Pass::AddInner(const std::shared_ptr<Pass>& pass) {
  ++inner_;
  std::lock_guard lock(mutex_);
  inner_passes_.push_back(pass);
}

void Pass::Enqueue(Event event, Later* later) {
  {
    std::lock_guard lock(mutex_);
    inbox_.push_back(std::move(event));
    if (scheduled_) return;
    scheduled_ = true;
  }
  if (later == nullptr || small_ < 0) return PostTask();
  later->push_back([self = shared_from_this()] { self->RunTask(Where::kHere); });
}

void Pass::PostTask() {
  peers_->Post([self = shared_from_this()] { self->RunTask(Where::kPool); });
}

void Pass::RunTask(Where where) {
  const RecordingPause pause;  // the thread that has brought an event may be in the middle of a call
  try {
    RunSlice(where);
  } catch (...) {  // out of memory, in all likelihood; the inbox stays scheduled until the next slice
    FailNow(Here(StatusFromCurrentException()));
    PostTask();
  }
}

void Pass::RunSlice(Where where) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + (where == Where::kPool ? Clock::duration(kSlice) : Clock::duration(kSliceHere));
  for (;;) {
    const bool handled = HandleEvents();
    if (!over_ && graph_->HasReady()) {
      if (where == Where::kHere && !graph_->NextIsQuick()) return PostTask();
      {
        CurrentPassScope scope(this);
        if (Status status = graph_->RunOne(); !status.ok()) FailNow(Here(status));
      }
      nodes_run_.fetch_add(1, std::memory_order_relaxed);
      if (Clock::now() < end) continue;
      return PostTask();
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
  SetStage(Stage::kMarking);
  for (const auto& [edge, input] : roots.inputs) graph_->Choose(edge, input);
  SendMarks(graph_->Start(roots.edges));
  if (kind_.chosen_inputs) {
    roots_ = std::move(roots);
    SendNeeds();
  } else if (Status status = graph_->Deliver(roots.edges, std::move(roots.gradients)); !status.ok()) {
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
  SendMarks(reached);
  SendNeeds();
  Engage(marks_, std::move(event.reply));
  SettleMarks();
}

void Pass::Engage(Wave& wave, ReplyCallback reply) {
  if (wave.engaged()) {
    reply(Answer());
  } else {
    wave.parent = std::move(reply);
  }
}

void Pass::Handle(NeededEvent& event) {
  if (over_) return event.reply(Answer(*over_));
  for (const auto& [message_id, output] : event.tensors) {
    auto it = reached_.find({event.from, message_id});
    if (it == reached_.end() || output < 0 || output >= it->second->num_inputs()) {
      const Status status = Here(
          InvalidArgument(StrCat("worker ", peers_->NameOf(event.from), " needs a gradient for tensor ", output,
                                 " of its message ", message_id, ", which this worker has not marked in this pass")));
      event.reply(Answer(status));
      return FailNow(status);
    }
    graph_->Need(*it->second, static_cast<uint32_t>(output));
  }
  SendNeeds();
  Engage(marks_, std::move(event.reply));
  SettleMarks();
}

Status Pass::Mark(int64_t message_id, int64_t output, std::vector<LocalGraph::ReachedOutput>& reached) {
  auto it = sends_.find(message_id);
  if (it == sends_.end()) {
    return FailedPrecondition(StrCat(
        "context ", context_->id(), " has no send function ", message_id, " on worker ", peers_->NameOf(peers_->self()),
        ": an earlier pass without retain_graph has used it up, or the context was released"));
  }
  SendState& state = it->second;
  if (output < 0 || static_cast<size_t>(output) >= state.marked.size()) {
    return InvalidArgument(
        StrCat("a mark names tensor ", output, " of send function ", message_id, ", which has ", state.marked.size()));
  }
  if (state.marked[output]) return OkStatus();  // a duplicate changes nothing
  if (state.received) {
    return FailedPrecondition(StrCat("a mark for send function ", message_id, " came after its gradients"));
  }
  state.marked[output] = true;
  if (state.marked_count++ == 0) {
    ++live_sends_;
    std::lock_guard lock(mutex_);
    awaited_[message_id] = {state.send->to(), peers_->clock().Now()};
  }
  if (kind_.chosen_inputs) not_needed_.emplace_back(message_id, output);
  --unmarked_tensors_;
  const auto& edge = state.send->next_edges()[output];
  const auto more = graph_->Start({edge});
  graph_->Decide(edge);
  reached.insert(reached.end(), more.begin(), more.end());
  return OkStatus();
}

void Pass::Handle(GradientsEvent& event) {
  if (over_) return event.reply(Answer(*over_));
  if (kind_.chosen_inputs && !marking_finished_) {  // the sender has heard of that before us
    early_.push_back(std::move(event));
    return;
  }
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
  Engage(run_, std::move(event.reply));
}

Status Pass::TakeGradients(SendState& state, variable_list gradients) {
  SendRpcBackward& send = *state.send;
  if (state.received) {
    return FailedPrecondition(
        StrCat("gradients came twice for send function ", send.message_id(), " of context ", context_->id()));
  }
  if (gradients.size() != state.marked.size()) {
    return InvalidArgument(StrCat(gradients.size(), " gradients came for send function ", send.message_id(),
                                  " of context ", context_->id(), ", which has ", state.marked.size(), " tensors"));
  }
  state.received = true;
  ++received_;
  {
    std::lock_guard lock(mutex_);
    awaited_.erase(send.message_id());
  }
  // Marks come before gradients, so that this is final.
  const bool whole = std::find(state.expected().begin(), state.expected().end(), false) == state.expected().end();
  if (!kind_.retain_graph && whole) used_up_.push_back(send.message_id());
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
    if (state.expected()[i]) {
      edges.push_back(send.next_edges()[i]);
      live.push_back(std::move(gradients[i]));
    } else if (gradients[i].defined()) {
      return InvalidArgument(StrCat("a gradient came for tensor ", i, " of send function ", send.message_id(),
                                    ", for which this pass needs none"));
    }
  }
  return graph_->Deliver(edges, std::move(live));
}

void Pass::Handle(AckEvent& event) {
  Wave& wave = event.mark ? marks_ : run_;
  --wave.deficit;
  {
    std::lock_guard lock(mutex_);
    if (--unanswered_[event.from].count == 0) unanswered_.erase(event.from);
  }
  if (over_) return;
  const Status& status = event.ack.ok() ? event.ack->status : event.ack.status();
  if (!status.ok()) return FailNow(Here(status.WithPeer(peers_->NameOf(event.from))));
  if (event.mark) {
    waiting_.insert(event.ack->waiting.begin(), event.ack->waiting.end());
    SettleMarks();
  }
}

void Pass::Handle(MarkFinishedEvent&) {
  if (!over_ && !marking_finished_) FinishMarking();
}

void Pass::Handle(InnerEndedEvent&) { --inner_; }

void Pass::Handle(PeerLostEvent& event) {
  if (over_) return;
  for (const auto& [message_id, state] : sends_) {
    if (state.live() && !state.received && state.send->to() == event.lost) return FailNow(Here(event.status));
  }
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
    if (kind_.chosen_inputs) reached_[{recv->from(), recv->message_id()}] = recv;
    MarkSendFunctions& mark = by_peer[recv->from()];
    mark.message_ids.push_back(recv->message_id());
    mark.outputs.push_back(output);
  }
  for (auto& [peer, mark] : by_peer) {
    mark.context_id = context_->id();
    mark.pass = kind_.id;
    mark.turn = kind_.turn;
    mark.retain_graph = kind_.retain_graph;
    mark.chosen_inputs = kind_.chosen_inputs;
    SendTo(peer, /*mark=*/true, std::move(mark));
  }
}

void Pass::SendNeeds() {
  std::map<WorkerId, MarkNeeded> by_peer;
  auto known = [&](const std::pair<int64_t, int64_t>& tensor) {
    SendState& state = sends_.at(tensor.first);
    if (!graph_->Needs(state.send->next_edges()[tensor.second])) return false;
    state.needed[tensor.second] = true;
    MarkNeeded& needed = by_peer[state.send->to()];
    needed.message_ids.push_back(tensor.first);
    needed.outputs.push_back(tensor.second);
    return true;
  };
  not_needed_.erase(std::remove_if(not_needed_.begin(), not_needed_.end(), known), not_needed_.end());
  for (auto& [peer, needed] : by_peer) {
    needed.context_id = context_->id();
    needed.pass = kind_.id;
    SendTo(peer, /*mark=*/true, std::move(needed));
  }
}

Status Pass::OnRecvFunction(RecvRpcBackward& recv, variable_list gradients) {
  PropagateGradients message;
  message.context_id = context_->id();
  message.pass = kind_.id;
  message.message_id = recv.message_id();
  message.retain_graph = kind_.retain_graph;
  message.gradients = std::move(gradients);
  SendTo(recv.from(), /*mark=*/false, std::move(message));
  return OkStatus();
}

void Pass::SendTo(WorkerId to, bool mark, Message message) {
  ++(mark ? marks_ : run_).deficit;
  {
    std::lock_guard lock(mutex_);
    Unanswered& unanswered = unanswered_[to];
    if (unanswered.count++ == 0) unanswered.since = peers_->clock().Now();
    contacted_.insert(to);
  }
  peers_->Send(to, std::move(message), [self = shared_from_this(), mark, to](Result<Ack> ack) {
    const bool answered = ack.ok();  // on the thread that has read it, not on one that ends a connection
    Later later;
    self->Enqueue(AckEvent{mark, to, std::move(ack)}, answered ? &later : nullptr);
    for (const auto& fn : later) fn();
  });
}

void Pass::SettleMarks() {
  if (over_ || marks_.deficit != 0 || !marks_.engaged()) return;
  if (!marks_.root) {
    Ack ack = Answer();
    if (!marking_finished_ && (kind_.chosen_inputs || unmarked_tensors_ > 0)) waiting_.insert(peers_->self());
    ack.waiting.assign(waiting_.begin(), waiting_.end());
    waiting_.clear();
    SetStage(Stage::kRunning);
    std::exchange(marks_.parent, nullptr)(std::move(ack));
    return;
  }
  if (marking_finished_) return;
  for (WorkerId worker : std::exchange(waiting_, {})) {
    if (worker == peers_->self()) continue;
    {
      std::lock_guard lock(mutex_);
      contacted_.insert(worker);
    }
    peers_->Send(worker, MarkFinished{context_->id(), kind_.id}, nullptr);
  }
  FinishMarking();
}

void Pass::FinishMarking() {
  marking_finished_ = true;
  SetStage(Stage::kRunning);
  if (!kind_.chosen_inputs) return graph_->DecideAll();
  graph_->Restrict();
  live_sends_ = 0;
  for (const auto& [message_id, state] : sends_) {
    const bool live = std::find(state.needed.begin(), state.needed.end(), true) != state.needed.end();
    live_sends_ += live ? 1 : 0;
    std::lock_guard lock(mutex_);
    if (!live) awaited_.erase(message_id);
  }
  if (roots_) {
    PassRoots roots = *std::exchange(roots_, std::nullopt);
    if (Status status = graph_->Deliver(roots.edges, std::move(roots.gradients)); !status.ok()) {
      return FailNow(Here(status));
    }
  }
  for (GradientsEvent& event : std::exchange(early_, {})) Handle(event);
}

void Pass::SettleRun() {
  if (run_.deficit != 0 || run_.parent == nullptr || graph_->HasHeldBack() || inner_ > 0) return;
  // Before the answer: when the initiator has all of them, what was used up is gone everywhere.
  context_->RemoveSendFunctions(std::exchange(used_up_, {}));
  std::exchange(run_.parent, nullptr)(Answer());
}

void Pass::EndIfDone() {
  if (run_.deficit != 0 || marks_.deficit != 0 || graph_->HasHeldBack() || inner_ > 0) return;
  if (initiator_) {
    if (!run_.root || !marking_finished_) return;
    if (received_ != live_sends_) {
      return FailNow(
          Internal(StrCat("the pass came to rest while ", live_sends_ - received_, " send functions of worker ",
                          peers_->NameOf(kind_.id.initiator), " still wait for gradients")));
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
  for (GradientsEvent& event : std::exchange(early_, {})) event.reply(Answer(status));
  roots_.reset();
  End(status);
}

void Pass::End(const Status& status) {
  std::function<void()> finish;
  if (ended_) finish = [ended = ended_, status] { ended(status); };
  if (!owner_->Retire(*this, status, finish)) return;
  ended_ = nullptr;
  over_ = status.ok() ? FailedPrecondition("the pass has ended") : status;
  if (deadline_timer_ != 0) peers_->clock().Cancel(deadline_timer_);
  // The graph's memory is freed here, not when the last Ack has come: the sinks hold nothing but this.
  LocalGraph::Sinks none;
  graph_.emplace(kind_.retain_graph, /*chosen_inputs=*/false, std::move(none));
  sends_.clear();
  reached_.clear();
  live_.reset();  // a peer that stands still may keep this object for long
  if (finish) finish();
}

// ---- What others ask -------------------------------------------------------------------------------------------

void Pass::SetStage(Stage stage) {
  std::lock_guard lock(mutex_);
  stage_ = stage;
}

Pass::Progress Pass::Look() {
  std::lock_guard lock(mutex_);
  return {stage_, unanswered_, awaited_};
}

std::string Pass::WaitsFor() {
  const Progress progress = Look();
  std::string text;
  auto add = [&text](const std::string& item) { text += (text.empty() ? "" : ", ") + item; };
  for (const auto& [worker, unanswered] : progress.unanswered) {
    add(StrCat("worker ", peers_->NameOf(worker), " (", unanswered.count, " unanswered)"));
  }
  size_t listed = 0;
  for (const auto& [message_id, awaited] : progress.awaited) {
    if (++listed > 5) continue;
    add(StrCat("gradients from worker ", peers_->NameOf(awaited.from), " for send function ", message_id));
  }
  if (listed > 5) add(StrCat("and ", listed - 5, " more"));
  if (!text.empty()) return text;
  return progress.stage == Stage::kWaitsForTurn
             ? StrCat("its turn in context ", context_->id(), ", in which another pass runs")
             : "its own nodes";
}

const char* Pass::StageName(Stage stage) {
  switch (stage) {
    case Stage::kWaitsForTurn:
      return "waits for its turn";
    case Stage::kMarking:
      return "marking";
    case Stage::kRunning:
      return "running";
  }
  return "";
}

nlohmann::json Pass::Explain() {
  using nlohmann::json;
  const Progress progress = Look();
  const int64_t now = peers_->clock().Now();
  auto milliseconds = [](int64_t ns) { return static_cast<double>(ns) / 1e6; };
  json unanswered = json::array();
  for (const auto& [worker, messages] : progress.unanswered) {
    unanswered.push_back({{"peer", peers_->NameOf(worker)},
                          {"messages", messages.count},
                          {"for_ms", milliseconds(now - messages.since)}});
  }
  json awaited = json::array();
  for (const auto& [message_id, send] : progress.awaited) {
    awaited.push_back(
        {{"id", message_id}, {"from", peers_->NameOf(send.from)}, {"for_ms", milliseconds(now - send.since)}});
  }
  json pass = {{"initiator", peers_->NameOf(kind_.id.initiator)},
               {"number", kind_.id.number},
               {"state", StageName(progress.stage)},
               {"elapsed_ms", milliseconds(now - began_)},
               {"nodes_run", nodes_run_.load(std::memory_order_relaxed)},
               {"unanswered", std::move(unanswered)},
               {"send_functions", std::move(awaited)}};
  if (deadline_ != kNever) pass["time_left_ms"] = milliseconds(deadline_ - now);
  if (kind_.turn != kind_.id) {
    pass["within"] = {{"initiator", peers_->NameOf(kind_.turn.initiator)}, {"number", kind_.turn.number}};
  }
  return pass;
}

}  // namespace gradferry
