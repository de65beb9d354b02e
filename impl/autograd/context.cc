// See context.h.
#include "impl/autograd/context.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "impl/autograd/add_gradients.h"
#include "impl/tensor/torch_scope.h"

namespace gradferry {

Status DistAutogradContext::NotReleased() const {
  if (!released_) return OkStatus();
  return NotFound(StrCat("context ", id_, " was released")).WithDomain("autograd");
}

Status DistAutogradContext::AddSendFunction(NodeOf<SendRpcBackward> send) {
  std::lock_guard lock(mutex_);
  GF_RETURN_IF_ERROR(NotReleased());
  known_workers_.insert(send->to());
  const int64_t message_id = send->message_id();
  sends_[message_id] = std::move(send);
  return OkStatus();
}

Status DistAutogradContext::AddRecvFunction(NodeOf<RecvRpcBackward> recv) {
  std::lock_guard lock(mutex_);
  GF_RETURN_IF_ERROR(NotReleased());
  const auto key = std::make_pair(recv->from(), recv->message_id());
  recvs_[key] = std::move(recv);
  return OkStatus();
}

Status DistAutogradContext::AddKnownWorker(WorkerId worker) {
  std::lock_guard lock(mutex_);
  GF_RETURN_IF_ERROR(NotReleased());
  known_workers_.insert(worker);
  return OkStatus();
}

NodeOf<SendRpcBackward> DistAutogradContext::FindSendFunction(int64_t message_id) const {
  std::lock_guard lock(mutex_);
  auto it = sends_.find(message_id);
  return it == sends_.end() ? nullptr : it->second;
}

std::vector<NodeOf<SendRpcBackward>> DistAutogradContext::SendFunctions() const {
  std::lock_guard lock(mutex_);
  std::vector<NodeOf<SendRpcBackward>> sends;
  sends.reserve(sends_.size());
  for (const auto& [id, send] : sends_) sends.push_back(send);
  return sends;
}

void DistAutogradContext::RemoveSendFunctions(const std::vector<int64_t>& message_ids) {
  std::vector<NodeOf<SendRpcBackward>> dropped;  // freed after the lock: graphs can be large
  std::lock_guard lock(mutex_);
  for (int64_t id : message_ids) {
    auto node = sends_.extract(id);
    if (!node.empty()) dropped.push_back(std::move(node.mapped()));
  }
}

std::set<WorkerId> DistAutogradContext::KnownWorkers() const {
  std::lock_guard lock(mutex_);
  return known_workers_;
}

void DistAutogradContext::AccumulateGradient(const PassId& turn, const at::Tensor& variable, at::Tensor gradient) {
  TorchScope scope(GradRecording::kOff);
  std::lock_guard lock(mutex_);
  if (released_) return;
  if (turn != turn_) {  // turns come one after the other: the last one is settled
    for (size_t index : std::exchange(added_, {})) {
      gradients_[index].added = false;
      gradients_[index].before.reset();
    }
    turn_ = turn;
  }
  auto [it, inserted] = gradient_index_.try_emplace(variable.unsafeGetTensorImpl(), gradients_.size());
  if (inserted) gradients_.push_back({variable, {}, false, {}});
  LeafGradient& leaf = gradients_[it->second];
  at::Tensor& sum = leaf.gradient;
  if (!leaf.added) {
    leaf.added = true;
    added_.push_back(it->second);
    if (sum.defined()) {
      leaf.before = std::move(sum);
      sum = AddGradients(leaf.before, gradient);
      return;
    }
  }
  // `gradient` here is the one reference when nobody else holds it.
  constexpr size_t kOurReferences = 1;
  torch::autograd::AccumulateGrad::accumulateGrad(variable, sum, gradient, kOurReferences,
                                                  [&sum](at::Tensor&& updated) { sum = std::move(updated); });
}

void DistAutogradContext::TakeBackGradients(const PassId& turn) {
  std::vector<LeafGradient> dropped;  // freed after the lock
  std::lock_guard lock(mutex_);
  if (turn != turn_) return;
  for (size_t index : std::exchange(added_, {})) {
    LeafGradient& leaf = gradients_[index];
    leaf.added = false;
    leaf.gradient = std::move(leaf.before);
    leaf.before.reset();
  }
  gradient_index_.clear();
  std::vector<LeafGradient> kept;
  for (LeafGradient& leaf : gradients_) {
    if (leaf.gradient.defined()) {
      gradient_index_[leaf.variable.unsafeGetTensorImpl()] = kept.size();
      kept.push_back(std::move(leaf));
    } else {
      dropped.push_back(std::move(leaf));
    }
  }
  gradients_ = std::move(kept);
}

at::Tensor DistAutogradContext::Gradient(const at::Tensor& variable) const {
  std::lock_guard lock(mutex_);
  auto it = gradient_index_.find(variable.unsafeGetTensorImpl());
  return it == gradient_index_.end() ? at::Tensor() : gradients_[it->second].gradient;
}

std::vector<std::pair<at::Tensor, at::Tensor>> DistAutogradContext::Gradients() const {
  std::lock_guard lock(mutex_);
  std::vector<std::pair<at::Tensor, at::Tensor>> all;
  all.reserve(gradients_.size());
  for (const LeafGradient& entry : gradients_) all.emplace_back(entry.variable, entry.gradient);
  return all;
}

std::set<WorkerId> DistAutogradContext::Release() {
  decltype(sends_) sends;  // freed after the lock
  decltype(recvs_) recvs;
  decltype(gradients_) gradients;
  std::lock_guard lock(mutex_);
  released_ = true;
  sends.swap(sends_);
  recvs.swap(recvs_);
  gradients.swap(gradients_);
  gradient_index_.clear();
  added_.clear();
  return std::exchange(known_workers_, {});
}

bool DistAutogradContext::released() const {
  std::lock_guard lock(mutex_);
  return released_;
}

namespace {

// The nodes that the send functions lead to, numbered, with their edges.
class GraphDescription {
 public:
  nlohmann::json EdgesOf(Node& node) {
    nlohmann::json edges = nlohmann::json::array();
    for (const auto& edge : node.next_edges()) {
      if (!edge.is_valid()) {
        edges.push_back(nullptr);
      } else {
        edges.push_back({Number(*edge.function), edge.input_nr});
      }
    }
    return edges;
  }

  nlohmann::json Nodes() {
    nlohmann::json nodes = nlohmann::json::array();
    for (size_t i = 0; i < found_.size(); ++i) {  // grows while it is walked
      Node& node = *found_[i];
      nodes.push_back({{"id", i}, {"name", node.name()}, {"next", EdgesOf(node)}});
    }
    return nodes;
  }

 private:
  size_t Number(Node& node) {
    auto [it, inserted] = numbers_.try_emplace(&node, found_.size());
    if (inserted) found_.push_back(&node);
    return it->second;
  }

  std::unordered_map<Node*, size_t> numbers_;
  std::vector<Node*> found_;
};

}  // namespace

nlohmann::json DistAutogradContext::Describe() const {
  using nlohmann::json;
  std::lock_guard lock(mutex_);
  GraphDescription graph;
  json sends = json::array();
  for (const auto& [id, send] : sends_) {
    sends.push_back({{"id", id}, {"to", send->to()}, {"next", graph.EdgesOf(*send)}});
  }
  json recvs = json::array();
  for (const auto& [key, recv] : recvs_) {
    recvs.push_back({{"id", key.second}, {"from", key.first}, {"outputs", recv->num_inputs()}});
  }
  return {{"id", id_},
          {"known_workers", known_workers_},
          {"send_functions", std::move(sends)},
          {"recv_functions", std::move(recvs)},
          {"nodes", graph.Nodes()},
          {"gradients", gradients_.size()}};
}

}  // namespace gradferry
