// The passes of one worker: starts those that are begun here, and hands the messages of others to the right one.
//
// Turns. In one context passes run one after the other, whoever begins them: the worker that made the context gives the
// turns, in the order in which they are asked for. Its own passes so cost nothing more; those of others a request
// before (RequestTurn) and a word after (EndTurn). A pass that begins within a node of another one (re-entrant) shares
// its turn.
//
// A failed turn is taken back. Whoever takes part is told along the ways of the pass's own messages (AbortPass), drops
// its part, restores the gradients, tells its own peers, and answers when they have answered. Only then the next turn
// begins. So what a worker still holds of a turn when the next one comes has succeeded.
//
// Any thread.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "impl/autograd/container.h"
#include "impl/engine/pass.h"
#include "impl/engine/peers.h"

namespace gradferry {

struct BackwardRequest {
  std::vector<at::Tensor> roots;
  std::vector<at::Tensor> grads;   // as many as roots; an undefined one stands for ones
  std::vector<at::Tensor> inputs;  // none: all leaves
  bool chosen_inputs = false;      // only the gradients of `inputs`
  bool retain_graph = false;
  int64_t deadline = kNever;  // on the worker's clock
};

class DistEngine final : public PassOwner {
 public:
  // Both must outlive the engine.
  DistEngine(EnginePeers* peers, DistAutogradContainer* container) : peers_(peers), container_(container) {}

  // Starts a pass when its turn has come. `done` is called once, on the worker's pool, unless this returns an error
  // (wrong roots, seeds or inputs). The pass can be cancelled by Fail.
  Result<std::shared_ptr<Pass>> Backward(std::shared_ptr<DistAutogradContext> context, BackwardRequest request,
                                         std::function<void(Status)> done);

  // Messages of other workers.
  void OnMark(WorkerId from, MarkSendFunctions message, ReplyCallback reply);
  void OnNeeded(WorkerId from, MarkNeeded message, ReplyCallback reply);
  void OnMarkFinished(const MarkFinished& message);
  void OnGradients(WorkerId from, PropagateGradients message, ReplyCallback reply);
  void OnAbort(WorkerId from, const AbortPass& message, ReplyCallback reply);
  void OnRequestTurn(const RequestTurn& message, ReplyCallback reply);
  void OnEndTurn(const EndTurn& message);

  // The context goes away: its passes fail with `status`, and nothing of it is remembered.
  void AbandonContext(int64_t context_id, const Status& status);
  // Turns that `lost` began, and parts that wait for gradients of it, fail; what waits for an answer of it learns from
  // the connection.
  void OnPeerLost(WorkerId lost, const Status& status);
  // The connection with a worker that gave turns has ended: it takes them back, so the passes begun here in them fail.
  void OnGiverLost(WorkerId giver, const Status& status);
  void FailAll(const Status& status);

  size_t active_passes() const;
  // [{"initiator", "number"}] of a context, for gf_context_describe.
  nlohmann::json Describe(int64_t context_id) const;
  // What its passes wait for, for gf_context_explain.
  nlohmann::json Explain(int64_t context_id) const;

  bool Retire(Pass& pass, const Status& status, std::function<void()>& finish) override;

 private:
  // Tells the caller of backward, once, whoever comes first. Any thread.
  class Finish {
   public:
    explicit Finish(std::function<void()> fn) : fn_(std::move(fn)) {}
    void Call();

   private:
    std::mutex mutex_;
    std::function<void()> fn_;
  };

  // The last turn that came here. It is at rest when no pass of it runs here and no abort of it is under way.
  struct Turn {
    PassId id;
    std::vector<std::shared_ptr<Pass>> passes;  // that run here: the outermost one and re-entrant ones
    bool over = false;                          // here is its initiator, and it has ended
    std::set<WorkerId> contacted;               // by passes that have ended here
    bool aborting = false;
    bool taken_back = false;
    Status status;                   // aborting: why
    std::set<WorkerId> told;         // aborting: have been sent an AbortPass, or need none
    int64_t unanswered = 0;          // AbortPass
    ReplyCallback aborter;           // is owed an answer
    std::shared_ptr<Finish> finish;  // the caller hears of the failure when all have answered, or soon
    bool at_rest() const { return passes.empty() && unanswered == 0 && !aborter; }
  };
  struct Claim {
    PassId pass;
    std::function<void(Status)> granted;  // or refused
  };
  struct Seen {
    uint64_t begun = 0;    // the highest number of a turn that came here
    uint64_t aborted = 0;  // turns up to this number are over
  };
  struct ContextPasses {
    std::optional<Turn> turn;
    std::deque<std::function<void(Later&)>> deferred;  // until the turn is at rest; called with the lock held
    std::vector<std::shared_ptr<Pass>> waiting;        // begun here, not yet their turn
    std::map<WorkerId, Seen> seen;                     // per initiator
    // Where the context was made:
    std::optional<PassId> holder;  // whose turn it is
    std::deque<Claim> claims;
  };
  // Made before the lock is taken, so that it calls after the lock is given back.
  struct RunLater {
    Later later;
    ~RunLater() {
      for (auto& fn : later) fn();
    }
  };

  // All with mutex_ held.
  std::shared_ptr<Pass> FindPass(int64_t context_id, const PassId& id) const;
  std::shared_ptr<Pass> AddPass(Turn& turn, const PassKind& kind, std::shared_ptr<DistAutogradContext> context,
                                std::function<void(Status)> ended);
  void AskForTurn(int64_t context_id, ContextPasses& passes, const std::shared_ptr<Pass>& pass, PassRoots roots,
                  Later& later);
  void AddClaim(ContextPasses& passes, Claim claim, Later& later);
  void ReleaseTurn(int64_t context_id, ContextPasses& passes, const PassId& id, Later& later);
  void EndClaim(ContextPasses& passes, const PassId& id, Later& later);
  void StartAbort(int64_t context_id, ContextPasses& passes, const Status& status, Later& later);
  void TellAbort(int64_t context_id, Turn& turn);
  void Settle(int64_t context_id, ContextPasses& passes, Later& later);
  void BeginTurn(int64_t context_id, const std::shared_ptr<Pass>& pass, const std::shared_ptr<PassRoots>& roots,
                 Later& later);
  void TakeMark(WorkerId from, MarkSendFunctions message, ReplyCallback reply, Later& later);
  void TakeGradients(WorkerId from, PropagateGradients message, ReplyCallback reply, Later& later);

  // Without it.
  void OnAbortAnswered(int64_t context_id, const PassId& turn);

  EnginePeers* const peers_;
  DistAutogradContainer* const container_;
  // Guards the rest. Before links', a pass's inbox lock and the pool's; replies and `done` are never called under it.
  mutable std::mutex mutex_;
  std::unordered_map<int64_t, ContextPasses> contexts_;
  uint64_t next_number_ = 1;
};

}  // namespace gradferry
