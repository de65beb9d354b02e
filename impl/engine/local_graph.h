// One pass over this worker's part of the graph: which nodes the pass reaches, how many contributions each of them
// still waits for, and running them. It knows nothing of messages; the pass (pass.h) tells it what is live and takes
// what flows out of recv functions.
//
// Exactness. Start() makes an entry (the roots, or a send function that was marked) live and walks from it: every edge
// walked is one contribution that will come. A node runs when all of those have come, unless a send function that may
// still turn out live could reach it (potential.h): then it is held back until that is known. So a node runs once, with
// everything, and where nothing is uncertain nothing waits.
//
// Chosen inputs. Such a graph also knows what leads to a chosen input, here or on a peer: Choose and Need say where
// that begins, it spreads from there to everything walked, and after Restrict only that runs.
//
// Not thread safe: the pass runs it on one thread at a time. No recursion anywhere: graphs may be long.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "impl/autograd/functions.h"
#include "impl/base/status.h"
#include "impl/engine/input_buffer.h"
#include "impl/engine/potential.h"

namespace gradferry {

class LocalGraph {
 public:
  struct Sinks {
    // The gradients for a recv function's outputs; undefined ones stay undefined.
    std::function<Status(RecvRpcBackward& recv, variable_list gradients)> recv;
    // A gradient for a leaf or for a chosen input.
    std::function<void(const at::Tensor& variable, at::Tensor gradient)> leaf;
  };

  LocalGraph(bool retain_graph, bool chosen_inputs, Sinks sinks)
      : retain_graph_(retain_graph), chosen_inputs_(chosen_inputs), sinks_(std::move(sinks)) {}

  // Which tensor of a message the pass has reached.
  struct ReachedOutput {
    RecvRpcBackward* recv;
    uint32_t output;
  };

  // Edges from which gradients will come, exactly once per valid edge. Returns the outputs of recv functions that are
  // reached for the first time; each such function will be handed to Sinks::recv once, when no more can be.
  std::vector<ReachedOutput> Start(const edge_list& edges);
  // The gradients for edges given to Start before, index by index. A gradient that does not fit its edge is an error.
  Status Deliver(const edge_list& edges, variable_list gradients);

  // Chosen inputs only. Choose: before the first Start, a tensor with its gradient edge. Need: a reached output of a
  // recv function leads to an input on the peer.
  void Choose(const torch::autograd::Edge& edge, const at::Tensor& input);
  void Need(RecvRpcBackward& recv, uint32_t output);
  // Whether a gradient for this edge, given to Start before, leads to a chosen input as far as is known.
  bool Needs(const torch::autograd::Edge& edge) const;
  // Nothing more will be started, chosen or needed: what is not needed is forgotten. Before the first Deliver.
  void Restrict();

  // Edges from which gradients may or may not come: what they lead to is held back until each of them is decided, by a
  // Start or because none will come. The caller keeps them alive.
  void AddPotential(const edge_list& edges);
  void Decide(const torch::autograd::Edge& edge);
  void DecideAll();

  // Whether some node can run now. May look at the whole graph, once, when there are potential entries.
  bool HasReady();
  // Whether the node that RunOne would run takes microseconds (small_parts.h); HasReady() was true.
  bool NextIsQuick();
  // Runs one node; HasReady() was true. An error names the node.
  Status RunOne();
  // Nodes that have all their contributions but are held back.
  bool HasHeldBack() const { return !held_back_.empty(); }

 private:
  // What a pass for chosen inputs knows of a node besides.
  struct NodeNeeds {
    struct From {
      Node* node;  // null: an entry
      uint32_t input;
    };
    std::vector<From> from;                               // the edges that were walked to the node
    std::vector<bool> inputs;                             // those whose gradients lead to a chosen input
    std::vector<std::pair<uint32_t, at::Tensor>> chosen;  // the inputs that are chosen themselves
    bool runs = false;                                    // what the node hands on is needed
    std::vector<bool> peer;  // of a recv function: the outputs that lead to an input on the peer
  };
  struct NodeState {
    NodePtr node;         // keeps it alive
    int64_t missing = 0;  // contributions that have not come yet
    bool walked = false;
    bool ran = false;
    RecvRpcBackward* recv = nullptr;    // the node, when it is one
    std::vector<bool> reached_outputs;  // of recv
    std::unique_ptr<NodeNeeds> needs;
    InputBuffer buffer;
  };
  struct Ready {
    uint64_t priority;
    Node* node;
    bool operator<(const Ready& other) const { return priority < other.priority; }
  };

  NodeState& StateOf(const NodePtr& node);
  // A gradient for this input, or what this node hands on, leads to a chosen input. What leads there follows in
  // SpreadNeeds.
  void NeedInput(Node* node, uint32_t input);
  void NeedOutputs(Node* node);
  void SpreadNeeds();
  void Contribute(const torch::autograd::Edge& edge, at::Tensor gradient);
  void PushReady(Node* node);
  // The top of ready_ that may run, after moving held-back nodes aside; null when there is none.
  Node* PeekReady();
  Status Run(NodeState& state);

  const bool retain_graph_;
  const bool chosen_inputs_;
  std::vector<std::pair<Node*, uint32_t>> spreading_;  // needed inputs, whose sources have not been told
  const Sinks sinks_;
  std::unordered_map<Node*, NodeState> states_;
  std::vector<Ready> ready_;  // a heap; entries may be stale (ran, or missing again)
  std::unordered_set<Node*> held_back_;
  Potential potential_;
};

}  // namespace gradferry
