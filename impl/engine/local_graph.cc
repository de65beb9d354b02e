// See local_graph.h. What libtorch's engine does around a node is done here with its public interface: hooks, the check
// that a gradient fits its input, release of saved tensors (pytorch, torch/csrc/autograd/engine.cpp, is the reference
// for the order).
#include "impl/engine/local_graph.h"

#include <ATen/ops/real.h>

#include <algorithm>

#include "impl/engine/small_parts.h"
#include "impl/tensor/operators.h"
#include "impl/tensor/torch_scope.h"

namespace gradferry {

using torch::autograd::AccumulateGrad;
using torch::autograd::Edge;

LocalGraph::NodeState& LocalGraph::StateOf(const NodePtr& node) {
  auto [it, inserted] = states_.try_emplace(node.get());
  NodeState& state = it->second;
  if (inserted) {
    state.node = node;
    state.recv = dynamic_cast<RecvRpcBackward*>(node.get());
    if (state.recv) state.reached_outputs.resize(state.recv->num_inputs());
    if (chosen_inputs_) {
      state.needs = std::make_unique<NodeNeeds>();
      state.needs->inputs.resize(node->num_inputs());
    }
  }
  return state;
}

std::vector<LocalGraph::ReachedOutput> LocalGraph::Start(const edge_list& edges) {
  std::vector<ReachedOutput> reached;
  std::vector<Node*> stack;
  auto walk_edge = [&](Node* from, const Edge& edge) {
    if (!edge.is_valid()) return;
    NodeState& state = StateOf(edge.function);
    ++state.missing;
    if (!std::exchange(state.walked, true)) stack.push_back(edge.function.get());
    if (state.needs) {
      state.needs->from.push_back({from, edge.input_nr});
      if (from != nullptr && state.needs->inputs[edge.input_nr]) NeedOutputs(from);
    }
    if (state.recv && !state.reached_outputs[edge.input_nr]) {
      state.reached_outputs[edge.input_nr] = true;
      reached.push_back({state.recv, edge.input_nr});
    }
  };
  for (const Edge& edge : edges) walk_edge(nullptr, edge);
  while (!stack.empty()) {
    Node* node = stack.back();
    stack.pop_back();
    for (const Edge& edge : node->next_edges()) walk_edge(node, edge);
  }
  SpreadNeeds();
  return reached;
}

// ---- Chosen inputs -----------------------------------------------------------------------------------------------

void LocalGraph::Choose(const Edge& edge, const at::Tensor& input) {
  NodeState& state = StateOf(edge.function);
  state.needs->inputs[edge.input_nr] = true;
  state.needs->chosen.emplace_back(edge.input_nr, input);
}

void LocalGraph::NeedInput(Node* node, uint32_t input) {
  NodeState& state = states_.at(node);
  if (state.needs->inputs[input]) return;
  state.needs->inputs[input] = true;
  spreading_.emplace_back(node, input);
}

void LocalGraph::Need(RecvRpcBackward& recv, uint32_t output) {
  NodeNeeds& needs = *states_.at(&recv).needs;
  needs.runs = true;
  needs.peer.resize(needs.inputs.size());
  needs.peer[output] = true;
  NeedInput(&recv, output);
  SpreadNeeds();
}

void LocalGraph::NeedOutputs(Node* node) {
  NodeNeeds& needs = *states_.at(node).needs;
  if (std::exchange(needs.runs, true)) return;
  for (uint32_t i = 0; i < needs.inputs.size(); ++i) NeedInput(node, i);
}

void LocalGraph::SpreadNeeds() {
  while (!spreading_.empty()) {
    const auto [node, input] = spreading_.back();
    spreading_.pop_back();
    for (const NodeNeeds::From& from : states_.at(node).needs->from) {
      if (from.input == input && from.node != nullptr) NeedOutputs(from.node);
    }
  }
}

bool LocalGraph::Needs(const Edge& edge) const {
  if (!edge.is_valid()) return false;
  auto it = states_.find(edge.function.get());
  return it != states_.end() && (!it->second.needs || it->second.needs->inputs[edge.input_nr]);
}

void LocalGraph::Restrict() {
  for (auto& [node, state] : states_) {
    state.missing = 0;
    for (const NodeNeeds::From& from : state.needs->from) state.missing += state.needs->inputs[from.input] ? 1 : 0;
  }
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
  if (state.needs && !state.needs->inputs[edge.input_nr]) return;
  state.buffer.Add(edge.input_nr, std::move(gradient));
  if (--state.missing == 0) PushReady(edge.function.get());
}

void LocalGraph::PushReady(Node* node) {
  // Latest first, as libtorch: leaves, whose number is the highest, as soon as they can.
  ready_.push_back({node->sequence_nr(), node});
  std::push_heap(ready_.begin(), ready_.end());
}

void LocalGraph::AddPotential(const edge_list& edges) {
  for (const Edge& edge : edges) {
    if (edge.is_valid()) potential_.Add(edge.function.get());
  }
}

void LocalGraph::Decide(const Edge& edge) {
  if (!edge.is_valid()) return;
  for (Node* node : potential_.Remove(edge.function.get())) {
    if (held_back_.erase(node) > 0) PushReady(node);
  }
}

void LocalGraph::DecideAll() {
  potential_.Clear();
  for (Node* node : std::exchange(held_back_, {})) PushReady(node);
}

Node* LocalGraph::PeekReady() {
  while (!ready_.empty()) {
    Node* node = ready_.front().node;
    const NodeState& state = states_.at(node);
    const bool stale = state.ran || state.missing != 0;  // pushed again when its last contribution comes
    if (!stale && !potential_.Contains(node)) return node;
    if (!stale) held_back_.insert(node);
    std::pop_heap(ready_.begin(), ready_.end());
    ready_.pop_back();
  }
  return nullptr;
}

bool LocalGraph::HasReady() { return PeekReady() != nullptr; }

bool LocalGraph::NextIsQuick() {
  Node* node = PeekReady();
  return node != nullptr && IsQuick(*node, states_.at(node).buffer.slots());
}

Status LocalGraph::RunOne() {
  Node* node = PeekReady();
  if (node == nullptr) return Internal("no node of the pass can run");
  std::pop_heap(ready_.begin(), ready_.end());
  ready_.pop_back();
  NodeState& state = states_.at(node);
  state.ran = true;
  TorchScope scope(GradRecording::kOff);
  try {
    return Run(state).WithOperation(node->name());
  } catch (...) {
    return StatusFromTorchException().WithDomain("autograd").WithOperation(node->name());
  }
}

Status LocalGraph::Run(NodeState& state) {
  Node& node = *state.node;
  // Hooks of tensors that a local graph would have at a node which does not run are left out.
  const std::vector<bool>& with_hooks = state.needs ? state.needs->inputs : state.reached_outputs;
  variable_list inputs = RunPreHooks(node, std::move(state.buffer).Take(node.num_inputs()), with_hooks);
  if (state.needs) {
    if (dynamic_cast<AccumulateGrad*>(&node) == nullptr) {
      for (const auto& [input, chosen] : state.needs->chosen) {
        if (inputs[input].defined()) sinks_.leaf(chosen, inputs[input]);
      }
      if (!state.needs->runs) return OkStatus();
    }
    for (size_t i = 0; state.recv && i < inputs.size(); ++i) {
      if (!state.needs->peer[i]) inputs[i].reset();
    }
  }
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
