// Which nodes of a graph may still be reached by gradients that may or may not come: those that an entry leads to which
// is not decided yet. Counts the edges that lead to each such node, so that deciding an entry costs what becomes
// certain by it, and all entries of a pass together cost one walk over the graph. Nothing is walked before somebody
// asks.
//
// LocalGraph's; not thread safe. Holds plain pointers: whoever adds an entry keeps its graph alive.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "impl/autograd/node.h"

namespace gradferry {

class Potential {
 public:
  // An entry that leads to this node; the same node may be added more than once.
  void Add(Node* entry);
  // One entry that leads to this node is decided, whichever way. Returns the nodes that are certain by it, as far as
  // somebody has asked for any; the order is not said.
  std::vector<Node*> Remove(Node* entry);
  void Clear();

  bool empty() const { return edges_.empty(); }
  bool Contains(Node* node);

 private:
  void Walk();

  bool walked_ = false;
  // The undecided edges that lead to a node: those of entries only, until it is walked.
  std::unordered_map<Node*, int64_t> edges_;
};

}  // namespace gradferry
