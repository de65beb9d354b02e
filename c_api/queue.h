// What a gf_queue points to: completions and inbound requests in the order in which they came. The library puts entries
// in on its own threads; threads of the caller take them out.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "impl/base/status.h"
#include "impl/rpc/request.h"
#include "impl/rpc/worker.h"
#include "impl/tensor/value.h"

namespace gradferry {

struct QueueEntry {
  uintptr_t token = 0;
  uint32_t kind = 0;  // GF_ENTRY_*
  Status status;      // of a completion
  ValueList results;
  std::shared_ptr<Request> request;
  std::weak_ptr<Worker> worker;  // of a request
};

class CompletionQueue {
 public:
  CompletionQueue() = default;
  CompletionQueue(const CompletionQueue&) = delete;
  ~CompletionQueue();

  void Push(QueueEntry entry);
  // Up to `capacity` entries; waits at most `timeout` ns of real time for the first.
  std::vector<QueueEntry> Next(size_t capacity, int64_t timeout);
  // An eventfd that is readable while entries wait.
  Result<int> Fd();

 private:
  void Signal();  // with mutex_ held

  std::mutex mutex_;  // guards the rest; a leaf lock
  std::condition_variable filled_;
  std::deque<QueueEntry> entries_;
  int fd_ = -1;  // made when it is first asked for
};

}  // namespace gradferry
