// See potential.h.
#include "impl/engine/potential.h"

namespace gradferry {

using torch::autograd::Edge;

void Potential::Add(Node* entry) {
  if (++edges_[entry] > 1 || !walked_) return;
  std::vector<Node*> stack = {entry};
  while (!stack.empty()) {
    Node* node = stack.back();
    stack.pop_back();
    for (const Edge& edge : node->next_edges()) {
      if (edge.is_valid() && ++edges_[edge.function.get()] == 1) stack.push_back(edge.function.get());
    }
  }
}

std::vector<Node*> Potential::Remove(Node* entry) {
  std::vector<Node*> certain;
  auto drop = [&](Node* node) {
    auto it = edges_.find(node);
    if (it == edges_.end() || --it->second > 0) return;
    edges_.erase(it);
    certain.push_back(node);
  };
  drop(entry);
  if (!walked_) return {};
  for (size_t i = 0; i < certain.size(); ++i) {
    for (const Edge& edge : certain[i]->next_edges()) {
      if (edge.is_valid()) drop(edge.function.get());
    }
  }
  return certain;
}

void Potential::Clear() {
  edges_.clear();
  walked_ = false;
}

bool Potential::Contains(Node* node) {
  if (edges_.empty()) return false;
  if (!walked_) Walk();
  return edges_.count(node) > 0;
}

void Potential::Walk() {
  const auto entries = std::move(edges_);
  edges_.clear();
  walked_ = true;
  for (const auto& [entry, count] : entries) {
    for (int64_t i = 0; i < count; ++i) Add(entry);
  }
}

}  // namespace gradferry
