// Handlers that tests of several processes share: what PyTorch's tests do with functions that they pickle is done here
// with functions that a worker registers.
#pragma once

#include <string>
#include <vector>

#include "tests/support/c_abi/server.h"

namespace gf {

// Registers, on a server:
//
//   "operator"  (name, [arguments])        runs an operator, recorded if the caller's mode says so
//   "nested"    (a, b, [worker, ...])      a + b, at the last of these workers, each called by the one before it
//   "describe"  (id)                       gf_context_describe of a context over there, as JSON
//   "contexts"  ()                         how many contexts live in that process
//   "live"      (kind)                     gf_live_objects over there
//   "gradient"  (id, key)                  the gradient, in a context, of the parameter that "hold" put there
//   "hold"      (key, tensor)              keeps a copy of a tensor as a parameter
//   "use"       (key, tensor)              parameter * tensor
//   "backward_of_a_leaf"  (id)             a pass, in a context, that begins over there
//   "hang"      ()                         answers when nobody waits any more
//   "ready"     ()                         registered last, so that all are there when it answers
void RegisterHandlers(Server& server);

// A worker of another process is in the group before its handlers are: waits for those.
void WaitUntilReady(gf_worker* from, const std::string& peer);

// Runs an operator by the handler "operator".
List CallByHandler(gf_worker* from, const std::string& to, const std::string& name, const List& arguments,
                   const CallOptions& options);

}  // namespace gf
