// The one thread of a simulated network, its clock, and the events to come. Events run on the thread one by one, in the
// order of their time, at the same time in that of their places, at the same place in that of their scheduling, with no
// lock held. A place says whose event it is (a link's, a transport's timers'): threads that schedule at once do so in
// any order, and events that are due at once shall not depend on it. Called by everything else in this plugin.
//
// Real time is CLOCK_MONOTONIC, and the thread waits for the next event's time. Virtual time is a counter: an event
// that is due runs at once, and when none is due time jumps to the next one, unless somebody holds it. While it is
// held, work is being done that virtual time knows nothing of, and what it will send is sent at this time.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <tuple>

namespace gradferry::sim {

// When virtual time begins, in ns: a second, because 0 often stands for "no time".
constexpr uint64_t kVirtualStart = 1000000000;

class EventLoop {
 public:
  // Identifies an event, and orders them.
  struct Key {
    uint64_t at = 0;  // ns
    uint64_t place = 0;
    uint64_t sequence = 0;
    bool operator<(const Key& other) const {
      return std::tie(at, place, sequence) < std::tie(other.at, other.place, other.sequence);
    }
  };

  // Runs on the loop's thread when virtual time has been held for the given real time while an event waited for it.
  using StallCallback = std::function<void(uint64_t next_at, uint64_t real_ms)>;

  EventLoop(bool virtual_time, StallCallback on_stall);
  // Drops what is still to come. Not on the loop's own thread.
  ~EventLoop();

  bool virtual_time() const { return virtual_; }
  uint64_t Now() const;  // ns
  // At this time, or now when it has passed. run must not throw.
  Key Schedule(uint64_t at, uint64_t place, std::function<void()> run);
  // Does nothing when the event has begun.
  void Cancel(const Key& key);
  // Changes the number of reasons why virtual time must not move.
  void Hold(int64_t delta);
  // Warns after this much real time, when no shorter time was asked for before; 0 does nothing.
  void WarnOfStallAfter(uint64_t ms);

 private:
  using Queue = std::map<Key, std::function<void()>>;

  void Run();
  // Waits until the first event is due, or something has changed. True when it is due.
  bool FirstIsDue(std::unique_lock<std::mutex>& lock);
  void WaitWhileHeld(std::unique_lock<std::mutex>& lock, uint64_t next_at);

  const bool virtual_;
  const StallCallback on_stall_;
  std::atomic<uint64_t> virtual_now_{kVirtualStart};  // written by the loop's thread, under mutex_

  std::mutex mutex_;  // guards the rest but thread_; a leaf
  std::condition_variable wake_;
  Queue queue_;
  uint64_t last_sequence_ = 0;
  int64_t holds_ = 0;
  uint64_t stall_ms_ = 0;
  bool stall_reported_ = false;  // once for each time that time stands still
  bool stop_ = false;

  std::thread thread_;  // last, for it uses all of the above
};

}  // namespace gradferry::sim
