// The passes of one worker: starts those that are begun here, and hands the messages of others to the right one. In one
// context at most one pass is active on a worker: passes begun here wait for each other in order; one that another
// worker begins meanwhile is refused. Any thread.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "impl/autograd/container.h"
#include "impl/engine/pass.h"
#include "impl/engine/peers.h"

namespace gradferry {

struct BackwardRequest {
  std::vector<at::Tensor> roots;
  std::vector<at::Tensor> grads;  // as many as roots; an undefined one stands for ones
  bool retain_graph = false;
  int64_t deadline = kNever;  // on the worker's clock
};

class DistEngine final : public PassOwner {
 public:
  // Both must outlive the engine.
  DistEngine(EnginePeers* peers, DistAutogradContainer* container) : peers_(peers), container_(container) {}

  // Starts a pass. `done` is called once, on the worker's pool, unless this returns an error (wrong roots or seeds,
  // another worker's pass in this context). The pass can be cancelled by Fail.
  Result<std::shared_ptr<Pass>> Backward(std::shared_ptr<DistAutogradContext> context, BackwardRequest request,
                                         std::function<void(Status)> done);

  // Messages of other workers.
  void OnMark(WorkerId from, MarkSendFunctions message, ReplyCallback reply);
  void OnMarkFinished(const MarkFinished& message);
  void OnGradients(WorkerId from, PropagateGradients message, ReplyCallback reply);
  void OnAbort(WorkerId from, const AbortPass& message);

  // The context goes away: its passes fail with `status`, and nothing of it is remembered.
  void AbandonContext(int64_t context_id, const Status& status);
  // Passes that this worker began or takes part in and that `lost` began fail; those which wait for an answer of it
  // learn from the connection.
  void OnPeerLost(WorkerId lost, const Status& status);
  void FailAll(const Status& status);

  size_t active_passes() const;
  // [{"initiator", "number"}] of a context, for gf_context_describe.
  nlohmann::json Describe(int64_t context_id) const;

  bool Retire(Pass& pass, const Status& status) override;

 private:
  struct Waiting {
    std::shared_ptr<Pass> pass;
    PassRoots roots;
  };
  struct ContextPasses {
    std::shared_ptr<Pass> active;
    std::deque<Waiting> waiting;            // begun here
    std::map<WorkerId, uint64_t> aborted;   // per initiator: its passes up to this number are over
  };

  EnginePeers* const peers_;
  DistAutogradContainer* const container_;
  // Guards the rest. Before a pass's inbox lock and the pool's; replies and `done` are never called under it.
  mutable std::mutex mutex_;
  std::unordered_map<int64_t, ContextPasses> contexts_;
  uint64_t next_number_ = 1;
};

}  // namespace gradferry
