// A worker's part of one context: the send and recv functions of the messages that went through here, the workers that
// know of the context because of us, and the gradients of leaves. Shared by the container and by whoever works with it;
// any thread. The engine keeps the state of passes, not the context.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "impl/autograd/functions.h"
#include "impl/base/live.h"
#include "impl/base/status.h"

namespace gradferry {

class DistAutogradContext {
 public:
  explicit DistAutogradContext(int64_t id) : id_(id) {}

  int64_t id() const { return id_; }

  // Each fails with kNotFound when the context has been released.
  Status AddSendFunction(NodeOf<SendRpcBackward> send);
  Status AddRecvFunction(NodeOf<RecvRpcBackward> recv);
  Status AddKnownWorker(WorkerId worker);

  // Null when there is none with this id.
  NodeOf<SendRpcBackward> FindSendFunction(int64_t message_id) const;
  std::vector<NodeOf<SendRpcBackward>> SendFunctions() const;
  // After a pass that does not retain the graph, or when a message could not be sent after all.
  void RemoveSendFunctions(const std::vector<int64_t>& message_ids);
  std::set<WorkerId> KnownWorkers() const;

  // Adds to the gradient of a leaf, as AccumulateGrad adds to `.grad`; the first gradient is taken itself when nobody
  // else holds it. What the gradient was before `turn` (the outermost pass) is kept until another turn comes, so that
  // this one can be taken back; so the first addition of a turn is not in place.
  void AccumulateGradient(const PassId& turn, const at::Tensor& variable, at::Tensor gradient);
  // The gradients are again what they were before this turn added to them.
  void TakeBackGradients(const PassId& turn);
  // Undefined when there is none.
  at::Tensor Gradient(const at::Tensor& variable) const;
  // In the order of their first accumulation.
  std::vector<std::pair<at::Tensor, at::Tensor>> Gradients() const;

  // Drops everything; later additions fail. Returns the workers that have to be told. Idempotent.
  std::set<WorkerId> Release();
  bool released() const;

  // What gf_context_describe shows of this part.
  nlohmann::json Describe() const;

 private:
  struct LeafGradient {
    at::Tensor variable;
    at::Tensor gradient;
    bool added = false;  // by turn_
    at::Tensor before;   // added: the gradient without it; may be undefined
  };

  Status NotReleased() const;  // with mutex_ held

  const int64_t id_;
  mutable std::mutex mutex_;  // guards all below; a leaf lock: no other is taken under it
  bool released_ = false;
  std::map<int64_t, NodeOf<SendRpcBackward>> sends_;
  std::map<std::pair<WorkerId, int64_t>, NodeOf<RecvRpcBackward>> recvs_;
  std::set<WorkerId> known_workers_;
  PassId turn_;                // whose additions can be taken back
  std::vector<size_t> added_;  // indices into gradients_
  std::vector<LeafGradient> gradients_;
  std::unordered_map<const c10::TensorImpl*, size_t> gradient_index_;
  Live<LiveKind::kAutogradContexts> live_;
};

}  // namespace gradferry
