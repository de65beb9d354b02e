// A pool of threads that runs tasks in the order in which they were posted. Tasks must not block on anything that
// another task of the pool has to do: a pool of one thread must be enough.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "impl/base/clock.h"

namespace gradferry {

class Executor {
 public:
  // While tasks wait or run, `clock` (may be null; outlives the executor) is held, so that simulated time stands still.
  Executor(int threads, Clock* clock);
  ~Executor();  // Stop() must have been called

  // Runs the task on the pool. After Stop it is dropped, unrun. Any thread.
  void Post(std::function<void()> task);

  // Runs what was posted, also by tasks meanwhile, and ends the threads. Idempotent; not on a thread of the pool.
  void Stop();

  // Whether the calling thread belongs to any Executor of the process: such a thread must not block.
  static bool OnPoolThread();

 private:
  void Run();

  Clock* const clock_;
  std::mutex mutex_;  // guards the queue and the flags; a leaf lock
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  size_t running_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace gradferry
