// See dist_engine.h.
#include "impl/engine/dist_engine.h"

#include <ATen/ops/ones_like.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "impl/engine/current_pass.h"
#include "impl/tensor/operators.h"
#include "impl/tensor/torch_scope.h"

namespace gradferry {
namespace {

// How long the caller of a failed pass waits at most for the peers to take it back; those that live do so at once.
constexpr int64_t kAbortPatience = int64_t{50} * 1000000;

Status WrongRoot(size_t index, const std::string& why) {
  return InvalidArgument(StrCat("root ", index, " ", why)).WithDomain("autograd").WithOperation("backward");
}

// Edges and seed gradients of the roots, or what is wrong with them.
Result<PassRoots> CheckRoots(const BackwardRequest& request) {
  if (request.roots.empty()) {
    return InvalidArgument("no roots were given to backward").WithDomain("autograd").WithOperation("backward");
  }
  PassRoots roots;
  TorchScope scope(GradRecording::kOff);
  for (size_t i = 0; i < request.roots.size(); ++i) {
    const at::Tensor& root = request.roots[i];
    if (!root.defined()) return WrongRoot(i, "is not defined");
    if (!root.requires_grad()) return WrongRoot(i, StrCat("does not require grad: ", DescribeTensor(root)));
    at::Tensor seed = request.grads[i];
    if (!seed.defined()) {
      if (root.numel() != 1) {
        return WrongRoot(i, StrCat("has ", root.numel(), " elements (", DescribeTensor(root),
                                   "); only a root of one element can leave out its seed gradient"));
      }
      seed = at::ones_like(root);
    } else if (seed.sizes() != root.sizes() || seed.scalar_type() != root.scalar_type() ||
               seed.device() != root.device()) {
      return WrongRoot(i, StrCat("is ", DescribeTensor(root), " but its seed gradient is ", DescribeTensor(seed)));
    }
    roots.edges.push_back(torch::autograd::impl::gradient_edge(root));
    roots.gradients.push_back(std::move(seed));
  }
  for (size_t i = 0; i < request.inputs.size(); ++i) {
    const at::Tensor& input = request.inputs[i];
    if (!input.defined() || !input.requires_grad()) {
      return InvalidArgument(StrCat("input ", i,
                                    input.defined() ? StrCat(" does not require grad: ", DescribeTensor(input))
                                                    : " is not defined"))
          .WithDomain("autograd")
          .WithOperation("backward");
    }
    const bool named_before = std::any_of(request.inputs.begin(), request.inputs.begin() + i,
                                          [&](const at::Tensor& other) { return other.is_same(input); });
    if (!named_before) roots.inputs.emplace_back(torch::autograd::impl::gradient_edge(input), input);
  }
  return roots;
}

Ack Answer(const Status& status = OkStatus()) {
  Ack ack;
  ack.status = status.WithDomain("autograd");
  return ack;
}

// What the caller of backward sees of a pass's error.
Status Outcome(const Status& status, int64_t context_id) {
  switch (status.code()) {
    case Code::kOk:
    case Code::kCancelled:
    case Code::kDeadlineExceeded:
    case Code::kClosed:
      return status;
    default:
      return status
          .Wrap(Code::kPassAborted, StrCat("the backward pass in context ", context_id, " failed: ", status.message()))
          .WithDomain("autograd")
          .WithWorker(status.error()->worker)
          .WithOperation(status.error()->operation)
          .WithPeer(status.error()->peer);
  }
}

// Pairs of message id and output; kInvalidArgument when the lists of a message differ in length.
template <class M>
Result<std::vector<std::pair<int64_t, int64_t>>> Tensors(const M& message, const char* what) {
  if (message.outputs.size() != message.message_ids.size()) {
    return InvalidArgument(
        StrCat(what, " has ", message.message_ids.size(), " message ids and ", message.outputs.size(), " outputs"));
  }
  std::vector<std::pair<int64_t, int64_t>> tensors;
  for (size_t i = 0; i < message.outputs.size(); ++i) tensors.emplace_back(message.message_ids[i], message.outputs[i]);
  return tensors;
}

}  // namespace

// ---- Passes begun here -------------------------------------------------------------------------------------------

Result<std::shared_ptr<Pass>> DistEngine::Backward(std::shared_ptr<DistAutogradContext> context,
                                                   BackwardRequest request, std::function<void(Status)> done) {
  Result<PassRoots> roots = [&]() -> Result<PassRoots> {
    try {
      return CheckRoots(request);
    } catch (...) {
      return StatusFromTorchException();
    }
  }();
  if (!roots.ok()) return roots.status();
  const int64_t context_id = context->id();

  RunLater run;
  std::lock_guard lock(mutex_);
  GF_RETURN_IF_ERROR(container_->Find(context_id).status());  // not after its release
  ContextPasses& passes = contexts_[context_id];
  PassKind kind;
  kind.id = kind.turn = PassId{peers_->self(), next_number_++};
  kind.retain_graph = request.retain_graph;
  kind.chosen_inputs = request.chosen_inputs;
  auto ended = [context_id, done = std::move(done)](Status status) { done(Outcome(status, context_id)); };

  std::shared_ptr<Pass> outer;
  if (passes.turn) {
    for (const auto& running : passes.turn->passes) {
      if (running.get() == CurrentPass()) outer = running;
    }
  }
  if (!outer) {
    auto pass = std::make_shared<Pass>(kind, std::move(context), peers_, this, std::move(ended));
    pass->SetDeadline(request.deadline);
    passes.waiting.push_back(pass);
    AskForTurn(context_id, passes, pass, std::move(*roots), run.later);
    return pass;
  }
  if (passes.turn->aborting) return passes.turn->status;
  kind.turn = outer->turn();
  auto pass = AddPass(*passes.turn, kind, std::move(context), [outer, ended = std::move(ended)](Status status) {
    ended(std::move(status));
    outer->InnerEnded();
  });
  outer->AddInner(pass);
  pass->SetDeadline(std::min(request.deadline, outer->deadline()));
  pass->Begin(std::move(*roots), run.later);
  return pass;
}

std::shared_ptr<Pass> DistEngine::AddPass(Turn& turn, const PassKind& kind,
                                          std::shared_ptr<DistAutogradContext> context,
                                          std::function<void(Status)> ended) {
  turn.passes.push_back(std::make_shared<Pass>(kind, std::move(context), peers_, this, std::move(ended)));
  return turn.passes.back();
}

void DistEngine::AskForTurn(int64_t context_id, ContextPasses& passes, const std::shared_ptr<Pass>& pass,
                            PassRoots roots, Later& later) {
  auto granted = [this, context_id, pass, roots = std::make_shared<PassRoots>(std::move(roots))](const Status& status) {
    if (!status.ok()) return pass->Fail(status);
    RunLater run;
    std::lock_guard lock(mutex_);
    BeginTurn(context_id, pass, roots, run.later);
  };
  const WorkerId owner = WorkerOfAutogradId(context_id);
  if (owner == peers_->self()) return AddClaim(passes, {pass->id(), std::move(granted)}, later);
  peers_->Send(owner, RequestTurn{0, context_id, pass->id()}, [granted = std::move(granted)](const Result<Ack>& ack) {
    granted(ack.ok() ? ack->status : ack.status());
  });
}

void DistEngine::BeginTurn(int64_t context_id, const std::shared_ptr<Pass>& pass,
                           const std::shared_ptr<PassRoots>& roots, Later& later) {
  auto it = contexts_.find(context_id);
  if (it == contexts_.end()) return;  // abandoned meanwhile
  ContextPasses& passes = it->second;
  if (passes.turn && !passes.turn->at_rest()) {  // it has ended elsewhere and does so here in a moment
    passes.deferred.push_back([=](Later& then) { BeginTurn(context_id, pass, roots, then); });
    return;
  }
  auto waiting = std::find(passes.waiting.begin(), passes.waiting.end(), pass);
  if (waiting == passes.waiting.end()) return;  // failed meanwhile, and gave its turn back
  passes.waiting.erase(waiting);
  passes.turn = Turn();
  passes.turn->id = pass->id();
  passes.turn->passes.push_back(pass);
  passes.seen[pass->id().initiator].begun = pass->id().number;
  pass->Begin(std::move(*roots), later);
}

// ---- Turns ---------------------------------------------------------------------------------------------------------

void DistEngine::AddClaim(ContextPasses& passes, Claim claim, Later& later) {
  if (passes.holder) {
    passes.claims.push_back(std::move(claim));
    return;
  }
  passes.holder = claim.pass;
  later.push_back([granted = std::move(claim.granted)] { granted(OkStatus()); });
}

void DistEngine::EndClaim(ContextPasses& passes, const PassId& id, Later& later) {
  auto claim = std::find_if(passes.claims.begin(), passes.claims.end(), [&](const Claim& c) { return c.pass == id; });
  if (claim != passes.claims.end()) {
    later.push_back([granted = std::move(claim->granted)] { granted(Status(Code::kAborted, "the pass has ended")); });
    passes.claims.erase(claim);
  }
  if (!passes.holder || *passes.holder != id) return;
  passes.holder.reset();
  if (passes.claims.empty()) return;
  Claim next = std::move(passes.claims.front());
  passes.claims.pop_front();
  AddClaim(passes, std::move(next), later);
}

void DistEngine::ReleaseTurn(int64_t context_id, ContextPasses& passes, const PassId& id, Later& later) {
  const WorkerId owner = WorkerOfAutogradId(context_id);
  if (owner == peers_->self()) return EndClaim(passes, id, later);
  peers_->Send(owner, EndTurn{context_id, id}, nullptr);
}

void DistEngine::OnRequestTurn(const RequestTurn& message, ReplyCallback reply) {
  RunLater run;
  std::lock_guard lock(mutex_);
  auto context = container_->Find(message.context_id);
  if (!context.ok()) {
    run.later.push_back([reply = std::move(reply), status = context.status()] { reply(Answer(status)); });
    return;
  }
  AddClaim(contexts_[message.context_id],
           {message.pass, [reply = std::move(reply)](const Status& status) { reply(Answer(status)); }}, run.later);
}

void DistEngine::OnEndTurn(const EndTurn& message) {
  RunLater run;
  std::lock_guard lock(mutex_);
  auto it = contexts_.find(message.context_id);
  if (it != contexts_.end()) EndClaim(it->second, message.pass, run.later);
}

// ---- The end of a part, and of a turn ------------------------------------------------------------------------------

void DistEngine::Finish::Call() {
  std::function<void()> fn;
  {
    std::lock_guard lock(mutex_);
    fn = std::exchange(fn_, nullptr);
  }
  if (fn) fn();
}

bool DistEngine::Retire(Pass& pass, const Status& status, std::function<void()>& finish) {
  std::shared_ptr<Pass> retired;  // freed after the lock
  RunLater run;
  std::lock_guard lock(mutex_);
  if (status.ok() && pass.HasEvents()) return false;
  auto it = contexts_.find(pass.context_id());
  if (it == contexts_.end()) return true;
  ContextPasses& passes = it->second;
  auto take = [&](std::vector<std::shared_ptr<Pass>>& from) {
    for (auto& entry : from) {
      if (entry.get() != &pass) continue;
      retired = std::move(entry);
      from.erase(from.begin() + (&entry - from.data()));
      return true;
    }
    return false;
  };
  if (take(passes.waiting)) {
    ReleaseTurn(it->first, passes, pass.id(), run.later);
    return true;
  }
  if (!passes.turn || !take(passes.turn->passes)) return true;
  const std::set<WorkerId> contacted = pass.Contacted();
  passes.turn->contacted.insert(contacted.begin(), contacted.end());
  if (!status.ok()) StartAbort(it->first, passes, status, run.later);
  if (!status.ok() && finish && pass.id() == passes.turn->id) {
    passes.turn->finish = std::make_shared<Finish>(std::exchange(finish, nullptr));
    peers_->clock().Schedule(DeadlineAfter(peers_->clock().Now(), kAbortPatience),
                             [held = passes.turn->finish] { held->Call(); });
  }
  if (passes.turn->aborting) TellAbort(it->first, *passes.turn);
  Settle(it->first, passes, run.later);
  return true;
}

void DistEngine::StartAbort(int64_t context_id, ContextPasses& passes, const Status& status, Later& later) {
  Turn& turn = *passes.turn;
  if (std::exchange(turn.aborting, true)) return;
  turn.status = status;
  uint64_t& aborted = passes.seen[turn.id.initiator].aborted;
  aborted = std::max(aborted, turn.id.number);
  turn.told.insert(peers_->self());
  turn.contacted.insert(turn.id.initiator);
  for (const auto& pass : turn.passes) {
    const std::set<WorkerId> contacted = pass->Contacted();
    turn.contacted.insert(contacted.begin(), contacted.end());
    later.push_back([pass, status] { pass->Fail(status); });
  }
  TellAbort(context_id, turn);
}

void DistEngine::TellAbort(int64_t context_id, Turn& turn) {
  for (WorkerId worker : turn.contacted) {
    if (!turn.told.insert(worker).second) continue;
    ++turn.unanswered;
    peers_->Send(worker, AbortPass{0, context_id, turn.id, turn.status},
                 [this, context_id, id = turn.id](const Result<Ack>&) { OnAbortAnswered(context_id, id); });
  }
}

void DistEngine::OnAbortAnswered(int64_t context_id, const PassId& turn) {
  RunLater run;
  std::lock_guard lock(mutex_);
  auto it = contexts_.find(context_id);
  if (it == contexts_.end() || !it->second.turn || it->second.turn->id != turn) return;
  --it->second.turn->unanswered;
  Settle(context_id, it->second, run.later);
}

void DistEngine::Settle(int64_t context_id, ContextPasses& passes, Later& later) {
  Turn& turn = *passes.turn;
  if (!turn.passes.empty()) return;
  if (turn.aborting && !std::exchange(turn.taken_back, true)) {
    if (auto context = container_->Find(context_id); context.ok()) (*context)->TakeBackGradients(turn.id);
  }
  if (turn.unanswered > 0) return;
  if (turn.finish) later.push_back([finish = std::exchange(turn.finish, nullptr)] { finish->Call(); });
  if (turn.aborter) later.push_back([reply = std::exchange(turn.aborter, nullptr)] { reply(Answer()); });
  if (turn.id.initiator == peers_->self() && !std::exchange(turn.over, true)) {
    ReleaseTurn(context_id, passes, turn.id, later);
  }
  for (auto& fn : std::exchange(passes.deferred, {})) fn(later);
}

void DistEngine::OnAbort(WorkerId from, const AbortPass& message, ReplyCallback reply) {
  RunLater run;
  std::lock_guard lock(mutex_);
  auto answer = [&] { run.later.push_back([reply = std::move(reply)] { reply(Answer()); }); };
  if (!container_->Find(message.context_id).ok()) return answer();
  ContextPasses& passes = contexts_[message.context_id];
  uint64_t& aborted = passes.seen[message.pass.initiator].aborted;
  aborted = std::max(aborted, message.pass.number);
  // One that tells us while we tell others is answered at once, or two could wait for each other.
  if (!passes.turn || passes.turn->id != message.pass || passes.turn->aborting) return answer();
  passes.turn->aborter = std::move(reply);
  passes.turn->told.insert(from);
  StartAbort(message.context_id, passes, message.status.WithPeer(peers_->NameOf(from)), run.later);
  Settle(message.context_id, passes, run.later);
}

// ---- Messages of passes --------------------------------------------------------------------------------------------

std::shared_ptr<Pass> DistEngine::FindPass(int64_t context_id, const PassId& id) const {
  auto it = contexts_.find(context_id);
  if (it == contexts_.end() || !it->second.turn) return nullptr;
  for (const auto& pass : it->second.turn->passes) {
    if (pass->id() == id) return pass;
  }
  return nullptr;
}

void DistEngine::OnMark(WorkerId from, MarkSendFunctions message, ReplyCallback reply) {
  RunLater run;
  std::lock_guard lock(mutex_);
  TakeMark(from, std::move(message), std::move(reply), run.later);
}

void DistEngine::TakeMark(WorkerId from, MarkSendFunctions message, ReplyCallback reply, Later& later) {
  auto refuse = [&](const Status& status) {
    later.push_back([reply = std::move(reply), status] { reply(Answer(status)); });
  };
  auto tensors = Tensors(message, "a mark");
  if (!tensors.ok()) return refuse(tensors.status());
  auto context = container_->Find(message.context_id);
  if (!context.ok()) return refuse(context.status());
  ContextPasses& passes = contexts_[message.context_id];
  Seen& seen = passes.seen[message.turn.initiator];
  const bool current = passes.turn && passes.turn->id == message.turn;
  if (message.turn.number <= seen.aborted || (!current && message.turn.number <= seen.begun) ||
      (current && passes.turn->over)) {
    return refuse(Status(Code::kAborted,
                         StrCat("pass ", message.turn.number, " of worker ", peers_->NameOf(message.turn.initiator),
                                " in context ", message.context_id, " has ended")));
  }
  if (!current && passes.turn && !passes.turn->at_rest()) {  // it has ended elsewhere and does so here in a moment
    passes.deferred.push_back(
        [this, from, message, reply = std::move(reply)](Later& then) { TakeMark(from, message, reply, then); });
    return;
  }
  if (!current) {
    passes.turn = Turn();
    passes.turn->id = message.turn;
    seen.begun = message.turn.number;
  }
  auto pass = FindPass(message.context_id, message.pass);
  if (!pass) {
    pass = AddPass(*passes.turn, {message.pass, message.turn, message.retain_graph, message.chosen_inputs},
                   *std::move(context), peers_->WatchPart(message.pass.initiator));
  }
  pass->OnMark(from, *std::move(tensors), std::move(reply), later);
}

namespace {

Status NotRunning(const PassId& pass, int64_t context_id, const EnginePeers& peers) {
  return Status(Code::kAborted,
                StrCat("pass ", pass.number, " of worker ", peers.NameOf(pass.initiator), " in context ", context_id,
                       " does not run on worker ", peers.NameOf(peers.self())));
}

}  // namespace

void DistEngine::OnNeeded(WorkerId from, MarkNeeded message, ReplyCallback reply) {
  RunLater run;
  std::lock_guard lock(mutex_);
  auto tensors = Tensors(message, "MarkNeeded");
  auto pass = FindPass(message.context_id, message.pass);
  if (tensors.ok() && pass) return pass->OnNeeded(from, *std::move(tensors), std::move(reply), run.later);
  const Status status = tensors.ok() ? NotRunning(message.pass, message.context_id, *peers_) : tensors.status();
  run.later.push_back([reply = std::move(reply), status] { reply(Answer(status)); });
}

void DistEngine::OnMarkFinished(const MarkFinished& message) {
  RunLater run;
  std::lock_guard lock(mutex_);
  if (auto pass = FindPass(message.context_id, message.pass)) pass->OnMarkFinished(run.later);
}

void DistEngine::OnGradients(WorkerId from, PropagateGradients message, ReplyCallback reply) {
  RunLater run;
  std::lock_guard lock(mutex_);
  TakeGradients(from, std::move(message), std::move(reply), run.later);
}

void DistEngine::TakeGradients(WorkerId from, PropagateGradients message, ReplyCallback reply, Later& later) {
  if (auto pass = FindPass(message.context_id, message.pass)) {
    return pass->OnGradients(from, message.message_id, std::move(message.gradients), std::move(reply), later);
  }
  auto it = contexts_.find(message.context_id);
  if (it != contexts_.end() && !it->second.deferred.empty()) {  // the mark before it may be among them
    it->second.deferred.push_back(
        [this, from, message = std::move(message), reply = std::move(reply)](Later& then) mutable {
          TakeGradients(from, std::move(message), std::move(reply), then);
        });
    return;
  }
  const Status status = NotRunning(message.pass, message.context_id, *peers_);
  later.push_back([reply = std::move(reply), status] { reply(Answer(status)); });
}

// ---- What ends passes from outside ---------------------------------------------------------------------------------

void DistEngine::AbandonContext(int64_t context_id, const Status& status) {
  ContextPasses passes;
  {
    std::lock_guard lock(mutex_);
    auto node = contexts_.extract(context_id);
    if (node.empty()) return;
    passes = std::move(node.mapped());
  }
  for (const auto& pass : passes.waiting) pass->Fail(status);
  if (passes.turn) {
    for (const auto& pass : passes.turn->passes) pass->Fail(status);
    if (passes.turn->aborter) passes.turn->aborter(Answer());
    if (passes.turn->finish) passes.turn->finish->Call();
  }
  for (const Claim& claim : passes.claims) claim.granted(status);
  RunLater run;
  std::lock_guard lock(mutex_);
  for (const auto& fn : passes.deferred) fn(run.later);  // they find that the context is gone
}

void DistEngine::OnPeerLost(WorkerId lost, const Status& status) {
  RunLater run;
  std::lock_guard lock(mutex_);
  for (auto& [context_id, passes] : contexts_) {
    std::vector<PassId> ended;
    for (const Claim& claim : passes.claims) {
      if (claim.pass.initiator == lost) ended.push_back(claim.pass);
    }
    if (passes.holder && passes.holder->initiator == lost) ended.push_back(*passes.holder);
    for (const PassId& pass : ended) EndClaim(passes, pass, run.later);
    if (!passes.turn || passes.turn->passes.empty()) continue;
    const bool began = std::any_of(passes.turn->passes.begin(), passes.turn->passes.end(),
                                   [&](const auto& pass) { return pass->id().initiator == lost; });
    if (began || passes.turn->id.initiator == lost) {
      passes.turn->told.insert(lost);
      StartAbort(context_id, passes, status, run.later);
    } else {
      for (const auto& pass : passes.turn->passes) pass->OnPeerLost(lost, status);
    }
  }
}

void DistEngine::OnGiverLost(WorkerId giver, const Status& status) {
  if (giver == peers_->self()) return;
  RunLater run;
  std::lock_guard lock(mutex_);
  for (auto& [context_id, passes] : contexts_) {
    const bool ours = passes.turn && !passes.turn->over && passes.turn->id.initiator == peers_->self();
    if (ours && WorkerOfAutogradId(context_id) == giver) StartAbort(context_id, passes, status, run.later);
  }
}

void DistEngine::FailAll(const Status& status) {
  RunLater run;
  std::lock_guard lock(mutex_);
  for (auto& [context_id, passes] : contexts_) {
    for (const auto& pass : passes.waiting) run.later.push_back([pass, status] { pass->Fail(status); });
    if (passes.turn && !passes.turn->passes.empty()) StartAbort(context_id, passes, status, run.later);
  }
}

// ---- Questions -----------------------------------------------------------------------------------------------------

size_t DistEngine::active_passes() const {
  std::lock_guard lock(mutex_);
  size_t count = 0;
  for (const auto& [id, passes] : contexts_) {
    count += passes.waiting.size() + (passes.turn ? passes.turn->passes.size() : 0);
  }
  return count;
}

nlohmann::json DistEngine::Describe(int64_t context_id) const {
  std::lock_guard lock(mutex_);
  nlohmann::json list = nlohmann::json::array();
  auto it = contexts_.find(context_id);
  if (it == contexts_.end()) return list;
  auto add = [&](const auto& passes) {
    for (const auto& pass : passes) {
      list.push_back({{"initiator", pass->id().initiator}, {"number", pass->id().number}});
    }
  };
  if (it->second.turn) add(it->second.turn->passes);
  add(it->second.waiting);
  return list;
}

nlohmann::json DistEngine::Explain(int64_t context_id) const {
  using nlohmann::json;
  std::lock_guard lock(mutex_);
  json passes = json::array();
  json explained = {{"passes", json::array()}, {"turn", nullptr}, {"waiting_turns", 0}};
  auto it = contexts_.find(context_id);
  if (it == contexts_.end()) return explained;
  const ContextPasses& here = it->second;
  auto name = [&](const PassId& id) {
    return json{{"initiator", peers_->NameOf(id.initiator)}, {"number", id.number}};
  };
  if (here.turn) {
    for (const auto& pass : here.turn->passes) passes.push_back(pass->Explain());
    if (here.turn->aborting && !here.turn->at_rest()) {
      explained["aborting"] = {{"turn", name(here.turn->id)},
                               {"because", here.turn->status.ToString()},
                               {"unanswered", here.turn->unanswered}};
    }
  }
  for (const auto& pass : here.waiting) passes.push_back(pass->Explain());
  explained["passes"] = std::move(passes);
  if (here.holder) explained["turn"] = name(*here.holder);
  explained["waiting_turns"] = here.claims.size();
  return explained;
}

}  // namespace gradferry
