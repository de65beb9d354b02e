// Handlers as functions. A Server has threads of its own that take requests from a queue, so that its handlers may
// block, as those of most runtimes do; HandleDirect registers one that runs on the library's threads and may not.
#pragma once

#include <functional>
#include <list>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/c_abi/gf.h"

namespace gf {

// The results; a Failure that it throws becomes the answer.
using Handler = std::function<List(const Request&)>;

class Server {
 public:
  Server(gf_worker* worker, int threads);
  Server(const Server&) = delete;
  // After the worker's end, or the handlers that are called meanwhile never answer.
  ~Server();

  void On(const std::string& name, Handler handler);
  gf_worker* worker() const { return worker_; }

 private:
  void Run();

  const Worker worker_;
  Queue queue_;
  std::list<Handler> handlers_;  // stay where they are: the tokens point to them
  std::vector<std::thread> threads_;
};

// Runs on the library's threads and owns the request: it may keep it and answer later. `dropped` runs once, after the
// last call.
void HandleDirect(gf_worker* worker, const std::string& name, std::function<void(Request)> handler,
                  std::function<void()> dropped = nullptr, uint32_t flags = 0);
void HandleQueue(gf_worker* worker, const std::string& name, const Queue& queue, uintptr_t token);
void Unhandle(gf_worker* worker, const std::string& name);

// One entry of a queue, owned.
struct Entry {
  uintptr_t token = 0;
  uint32_t kind = 0;
  Error error;  // code GF_OK: none
  Request request;
  List results;
};
// Waits for one; throws when none comes in time.
Entry Next(const Queue& queue, int64_t timeout = kPatience);
// The one that is there, if any.
std::optional<Entry> NextIfAny(const Queue& queue);
Queue NewQueue();

}  // namespace gf
