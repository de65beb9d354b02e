#include "impl/engine/potential.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

namespace gradferry {
namespace {

struct Plain : Node {
  torch::autograd::variable_list apply(torch::autograd::variable_list&& inputs) override { return std::move(inputs); }
};

// A random graph: edges lead from nodes to earlier ones.
std::vector<NodeOf<Plain>> RandomGraph(std::mt19937& random, size_t size) {
  std::vector<NodeOf<Plain>> nodes;
  for (size_t i = 0; i < size; ++i) {
    auto node = MakeNode<Plain>();
    for (size_t edges = i == 0 ? 0 : random() % 4; edges > 0; --edges) {
      node->add_next_edge(torch::autograd::Edge(nodes[random() % i], 0));
    }
    node->add_next_edge(torch::autograd::Edge());
    nodes.push_back(std::move(node));
  }
  return nodes;
}

std::set<Node*> ReachOf(const std::multiset<Node*>& entries) {
  std::set<Node*> reach;
  std::vector<Node*> stack(entries.begin(), entries.end());
  while (!stack.empty()) {
    Node* node = stack.back();
    stack.pop_back();
    if (!reach.insert(node).second) continue;
    for (const auto& edge : node->next_edges()) {
      if (edge.is_valid()) stack.push_back(edge.function.get());
    }
  }
  return reach;
}

TEST(Potential, IsWhatUndecidedEntriesReach) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    const auto nodes = RandomGraph(random, 1 + random() % 60);
    Potential potential;
    std::multiset<Node*> entries;
    std::set<Node*> before;
    const bool ask_first = seed % 2 == 0;
    for (int step = 0; step < 60; ++step) {
      if (entries.empty() || random() % 3 > 0) {
        Node* entry = nodes[random() % nodes.size()].get();
        entries.insert(entry);
        potential.Add(entry);
        before = ReachOf(entries);
      } else {
        const auto it = std::next(entries.begin(), static_cast<int64_t>(random() % entries.size()));
        Node* entry = *it;
        entries.erase(it);
        const std::vector<Node*> certain = potential.Remove(entry);
        const std::set<Node*> now = ReachOf(entries);
        if (ask_first) {
          std::set<Node*> expected;
          for (Node* node : before) {
            if (now.count(node) == 0) expected.insert(node);
          }
          EXPECT_EQ(std::set<Node*>(certain.begin(), certain.end()), expected) << "seed " << seed;
          EXPECT_EQ(certain.size(), expected.size());
        }
        before = now;
      }
      if (!ask_first && step < 40) continue;
      for (const auto& node : nodes) {
        ASSERT_EQ(potential.Contains(node.get()), before.count(node.get()) > 0) << "seed " << seed;
      }
    }
    potential.Clear();
    EXPECT_FALSE(potential.Contains(nodes[0].get()));
  }
}

}  // namespace
}  // namespace gradferry
