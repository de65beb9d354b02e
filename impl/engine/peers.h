// What the engine needs of the rest of a worker. impl/rpc implements it; the engine knows nothing of connections.
#pragma once

#include <functional>
#include <string>

#include "impl/base/clock.h"
#include "impl/base/status.h"
#include "impl/wire/messages.h"

namespace gradferry {

// The outcome of a request of the engine: an Ack, or why none came.
using AckCallback = std::function<void(Result<Ack>)>;

class EnginePeers {
 public:
  virtual ~EnginePeers() = default;
  virtual WorkerId self() const = 0;
  // "stage1", or "worker 7" when the name is not known.
  virtual std::string NameOf(WorkerId worker) const = 0;
  // Sends in order per peer. `done` (null for messages that have no answer) is called once, on any thread, never on
  // this stack.
  virtual void Send(WorkerId to, Message message, AckCallback done) = 0;
  // Runs a task on the worker's pool.
  virtual void Post(std::function<void()> task) = 0;
  virtual Clock& clock() = 0;
  // This worker takes part in a pass of another one; what it gives is called with the outcome when its part is over.
  // Null: nobody wants to know.
  virtual std::function<void(Status)> WatchPart(WorkerId initiator) {
    (void)initiator;
    return nullptr;
  }
};

}  // namespace gradferry
