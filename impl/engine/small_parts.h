// Which work of a pass is so small that it is not worth a change of threads: then it runs on the thread that has read
// the message which brought it, as quick operators do (quick_operators.h). To be woken on another core costs more than
// the work itself, and a chain of calls pays that at each of its links, twice.
//
// That thread reads what all others wait for, so nothing may hold it up: no code of a user's, and a bounded number of
// steps.
#pragma once

#include <cstdint>

#include "impl/autograd/node.h"

namespace gradferry {

// Whether the edges lead to no more than *steps nodes, counting those that are reached in several ways each time; takes
// what it needed off *steps.
bool LeadsToFew(const edge_list& edges, int64_t* steps);

// Whether anything but libtorch and this library runs with the node.
bool HasHooks(const Node& node);

// Whether a node that is about to take these gradients runs no hooks and takes microseconds: a recv function, a leaf,
// or one of libtorch's elementwise nodes and views, with few elements.
bool IsQuick(const Node& node, const variable_list& gradients);

}  // namespace gradferry
