// See local_graph.h. What libtorch's engine does around a node is done here with its public interface: hooks, the check
// that a gradient fits its input, release of saved tensors (pytorch, torch/csrc/autograd/engine.cpp, is the reference
// for the order).
#include "impl/engine/local_graph.h"

#include <ATen/ops/real.h>

#include <algorithm>

#include "impl/tensor/operators.h"
#include "impl/tensor/torch_scope.h"

namespace gradferry {

using torch::autograd::AccumulateGrad;
using torch::autograd::Edge;

std::vector<LocalGraph::ReachedOutput> LocalGraph::Start(const edge_list& edges) {
  std::vector<ReachedOutput> reached;
  std::vector<Node*> stack;
  auto walk_edge = [&](const Edge& edge) {
    if (!edge.is_valid()) return;
    auto [it, first] = states_.try_emplace(edge.function.get());
    NodeState& state = it->second;
    ++state.missing;
    if (first) {
      state.node = edge.function;
      state.recv = dynamic_cast<RecvRpcBackward*>(edge.function.get());
      if (state.recv) state.reached_outputs.resize(state.recv->num_inputs());
      stack.push_back(edge.function.get());
    }
    if (state.recv && !state.reached_outputs[edge.input_nr]) {
      state.reached_outputs[edge.input_nr] = true;
      reached.push_back({state.recv, edge.input_nr});
    }
  };
  for (const Edge& edge : edges) walk_edge(edge);
  while (!stack.empty()) {
    Node* node = stack.back();
    stack.pop_back();
    for (const Edge& edge : node->next_edges()) walk_edge(edge);
  }
  return reached;
}

namespace {

// Makes `gradient` fit the input that `edge` leads to, as validate_outputs of libtorch does, or says why it cannot.
Status FitGradient(const Edge& edge, size_t index, at::Tensor& gradient) {
  if (!gradient.defined() || !edge.is_valid()) return OkStatus();
  const auto& metadata = edge.function->input_metadata(edge.input_nr);
  if (!metadata.is_same_shape(gradient)) {
    if (!metadata.is_expandable_to_shape(gradient)) {
      return InvalidArgument(metadata.incompatible_shape_error_message(index, gradient).str());
    }
    gradient = metadata.reduce_grad(gradient);
  }
  const auto wanted = c10::typeMetaToScalarType(metadata.options().dtype());
  if (!c10::isComplexType(wanted) && gradient.is_complex()) gradient = at::real(gradient);
  if (gradient.scalar_type() != wanted) gradient = gradient.to(wanted);
  if (gradient.device() != metadata.device()) {
    if (gradient.dim() != 0) {
      return InvalidArgument(StrCat("invalid gradient at index ", index, " - got one on ", gradient.device().str(),
                                    " but expected one on ", metadata.device().str()));
    }
    gradient = gradient.to(metadata.device());
  }
  return OkStatus();
}

}  // namespace

Status LocalGraph::Deliver(const edge_list& edges, variable_list gradients) {
  TorchScope scope(GradRecording::kOff);
  if (gradients.size() != edges.size()) {
    return Internal(StrCat(gradients.size(), " gradients for ", edges.size(), " edges"));
  }
  try {
    for (size_t i = 0; i < edges.size(); ++i) GF_RETURN_IF_ERROR(FitGradient(edges[i], i, gradients[i]));
    for (size_t i = 0; i < edges.size(); ++i) Contribute(edges[i], std::move(gradients[i]));
  } catch (...) {
    return StatusFromTorchException();
  }
  return OkStatus();
}

void LocalGraph::Contribute(const Edge& edge, at::Tensor gradient) {
  if (!edge.is_valid()) return;
  auto it = states_.find(edge.function.get());
  if (it == states_.end()) return;  // not reachable from any entry: cannot be, every walked node's edges were walked
  NodeState& state = it->second;
  state.buffer.Add(edge.input_nr, std::move(gradient));
  if (--state.missing == 0) PushReady(edge.function.get());
}

void LocalGraph::PushReady(Node* node) {
  // Latest first, as libtorch: leaves, whose number is the highest, as soon as they can.
  ready_.push_back({node->sequence_nr(), node});
  std::push_heap(ready_.begin(), ready_.end());
}

void LocalGraph::SetPotential(std::vector<NodePtr> potential) {
  potential_ = std::move(potential);
  potential_reach_valid_ = potential_.empty();
  potential_reach_.clear();
  for (Node* node : std::exchange(held_back_, {})) PushReady(node);
}

bool LocalGraph::IsHeldBack(Node* node) {
  if (potential_.empty()) return false;
  if (!potential_reach_valid_) {
    std::vector<Node*> stack;
    for (const NodePtr& entry : potential_) {
      if (potential_reach_.insert(entry.get()).second) stack.push_back(entry.get());
    }
    while (!stack.empty()) {
      Node* from = stack.back();
      stack.pop_back();
      for (const Edge& edge : from->next_edges()) {
        if (edge.is_valid() && potential_reach_.insert(edge.function.get()).second) stack.push_back(edge.function.get());
      }
    }
    potential_reach_valid_ = true;
  }
  return potential_reach_.count(node) > 0;
}

Node* LocalGraph::PeekReady() {
  while (!ready_.empty()) {
    Node* node = ready_.front().node;
    const NodeState& state = states_.at(node);
    const bool stale = state.ran || state.missing != 0;  // pushed again when its last contribution comes
    if (!stale && !IsHeldBack(node)) return node;
    if (!stale) held_back_.push_back(node);
    std::pop_heap(ready_.begin(), ready_.end());
    ready_.pop_back();
  }
  return nullptr;
}

bool LocalGraph::HasReady() { return PeekReady() != nullptr; }

Status LocalGraph::RunOne() {
  Node* node = PeekReady();
  if (node == nullptr) return Internal("no node of the pass can run");
  std::pop_heap(ready_.begin(), ready_.end());
  ready_.pop_back();
  NodeState& state = states_.at(node);
  state.ran = true;
  ++nodes_run_;
  TorchScope scope(GradRecording::kOff);
  try {
    return Run(state).WithOperation(node->name());
  } catch (...) {
    return StatusFromTorchException().WithDomain("autograd").WithOperation(node->name());
  }
}

Status LocalGraph::Run(NodeState& state) {
  Node& node = *state.node;
  variable_list inputs = RunPreHooks(node, std::move(state.buffer).Take(node.num_inputs()), state.reached_outputs);
  if (auto* leaf = dynamic_cast<AccumulateGrad*>(&node)) {
    if (!inputs.empty() && inputs[0].defined()) {
      const at::Tensor variable = leaf->variable;
      sinks_.leaf(variable, RunLeafHooks(*leaf, std::move(inputs[0])));
    }
    RunPostHooks(node, {}, {});
    return OkStatus();
  }
  if (state.recv) {
    const Status status = sinks_.recv(*state.recv, std::move(inputs));
    if (status.ok()) RunPostHooks(node, {}, {});
    return status;
  }
  if (!retain_graph_) node.will_release_variables();
  const bool keep_inputs = !node.post_hooks().empty();
  variable_list outputs = node(keep_inputs ? variable_list(inputs) : std::move(inputs));
  outputs = RunPostHooks(node, std::move(outputs), keep_inputs ? inputs : variable_list());
  if (!retain_graph_) node.release_variables();
  const edge_list& edges = node.next_edges();
  if (outputs.size() > edges.size()) {
    for (size_t i = edges.size(); i < outputs.size(); ++i) {
      if (outputs[i].defined()) {
        return Internal(StrCat("returned ", outputs.size(), " gradients, expected ", edges.size()));
      }
    }
  }
  outputs.resize(edges.size());
  for (size_t i = 0; i < edges.size(); ++i) GF_RETURN_IF_ERROR(FitGradient(edges[i], i, outputs[i]));
  for (size_t i = 0; i < edges.size(); ++i) Contribute(edges[i], std::move(outputs[i]));
  return OkStatus();
}

}  // namespace gradferry
