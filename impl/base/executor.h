// A pool of threads that runs tasks in the order in which they were posted. A task that must wait for something which
// another task may have to do says so (BlockingScope): then another thread takes this one's place meanwhile, so that
// a pool of one thread is enough for any depth of waiting.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "impl/base/clock.h"
#include "impl/base/histogram.h"
#include "impl/base/status.h"

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

  // What it does at the moment, in threads and tasks.
  struct Load {
    size_t threads = 0;  // that do not wait in a BlockingScope; with those of them that run a task:
    size_t busy = 0;
    size_t blocked = 0;  // that do
    size_t waiting = 0;  // tasks
  };
  Load load() const;
  // How long tasks waited for a thread.
  const DurationHistogram& waits() const { return waits_; }

  // Whether the calling thread belongs to any Executor of the process.
  static bool OnPoolThread();

  // On a thread of a pool, while it lives: the thread waits and does not count among the pool's. On any other thread it
  // does nothing. kResourceExhausted when too many threads of the pool wait already (kMaxBlocked).
  class BlockingScope {
   public:
    BlockingScope();
    ~BlockingScope();
    BlockingScope(const BlockingScope&) = delete;
    const Status& status() const { return status_; }
    // The clock that the thread's task holds, to be let go while it waits (Future::Wait); null when there is none.
    Clock* held_clock() const { return executor_ ? executor_->clock_ : nullptr; }

   private:
    Executor* executor_;
    Status status_;
  };
  static constexpr size_t kMaxBlocked = 4096;

 private:
  void Run();
  void StartThread();  // with mutex_ held

  Clock* const clock_;
  struct Task {
    std::function<void()> run;
    int64_t posted = 0;  // ns
  };

  mutable std::mutex mutex_;  // guards the queue and the flags; a leaf lock
  std::condition_variable wake_;
  std::deque<Task> tasks_;
  DurationHistogram waits_;
  size_t running_ = 0;
  bool stopping_ = false;
  const size_t wanted_;  // threads that do not wait
  size_t blocked_ = 0;
  size_t alive_ = 0;  // threads, blocked ones included
  std::vector<std::thread> threads_;
  std::vector<std::thread> finished_;  // have left Run, or are about to
};

}  // namespace gradferry
