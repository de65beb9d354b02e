// A thread that waits for sockets (epoll), deadlines and what other threads ask for. It sleeps when there is nothing.
//
// Everything that is called back is called on this thread with no lock held. In one round it sees to the sockets that
// are ready, then to what was deferred, to jobs and to timers; so a job never runs between two sockets' events.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "plugins/thrift/file_descriptor.h"
#include "plugins/thrift/spin.h"
#include "plugins/thrift/status.h"

namespace gradferry::thrift {

class Loop {
 public:
  using Clock = std::chrono::steady_clock;
  using Job = std::function<void()>;
  using Timer = std::pair<Clock::time_point, uint64_t>;

  // Something with a socket. It lives until Forget has been called and the round is over.
  class Watcher {
   public:
    virtual void OnReady(uint32_t events) = 0;  // of epoll

   protected:
    ~Watcher() = default;
  };

  // Something that has to be done soon, by an object that may ask for it often.
  class Deferred {
   public:
    virtual void RunDeferred() = 0;

   protected:
    ~Deferred() = default;
  };
  // kNow wakes the thread. kSoon does not: it is done in the next round, or within a millisecond.
  enum class Urgency { kNow, kSoon };

  static Status Start(std::unique_ptr<Loop>* out);
  // Runs what was posted, and ends the thread. Not on it.
  ~Loop();

  bool OnThisThread() const { return std::this_thread::get_id() == thread_.get_id(); }

  // Any thread.
  void Post(Job job);
  void Defer(std::shared_ptr<Deferred> what, Urgency urgency);
  // events: what to wait for; errors and hang-ups always are. The watcher is told for as long as it is the case.
  Status Watch(int fd, uint32_t events, Watcher* watcher);
  void Change(int fd, uint32_t events, Watcher* watcher);
  void Forget(int fd);

  // On this thread only. Cancel takes timers that are over, too.
  Timer At(Clock::time_point due, Job job);
  void Cancel(const Timer& timer) { timers_.erase(timer); }

 private:
  Loop() = default;

  void Run();
  int Patience();
  void Wake();
  void RunDeferred();
  void RunJobs();
  void RunTimers();

  FileDescriptor epoll_;
  FileDescriptor wake_;  // an eventfd
  FileDescriptor soon_;  // a timerfd
  std::atomic<bool> woken_{false};
  std::atomic<bool> soon_set_{false};
  std::atomic<bool> stopping_{false};

  // Of the thread.
  Spin spin_;
  std::map<Timer, Job> timers_;
  uint64_t last_timer_ = 0;
  std::vector<std::shared_ptr<Deferred>> running_deferred_;
  std::vector<Job> running_jobs_;

  std::mutex mutex_;  // guards what follows; a leaf
  std::vector<std::shared_ptr<Deferred>> deferred_;
  std::vector<Job> jobs_;

  std::thread thread_;
};

}  // namespace gradferry::thrift
