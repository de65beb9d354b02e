// Decides on which thread the host hears of an event, so that GF-TRN-02 and GF-TRN-03 hold whatever TensorPipe does.
//
// TensorPipe runs the callbacks of one Context one at a time, but on any thread that happens to be in one of its
// functions: on a thread of its own, or on the host's, within a call to send or close. An event of the second kind must
// not reach the host there. So:
//
//   - HostCall marks the stack of every call from the host, by a counter of the thread. It is common to all transports,
//     since the host may call one transport within an event of another.
//   - Deliver runs an event at once when no HostCall is on its stack, and no other event runs or waits. Otherwise the
//     event joins the queue, which the dispatcher, a thread of ours, works off in order.
//   - An event counts until it has been run. Events that come meanwhile queue up behind it, even those that TensorPipe
//     raises on the dispatcher itself when the event calls into it.
//
// In the common case, a callback on a thread of TensorPipe's, there is no other thread involved.
//
// No lock is held while an event runs.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

namespace gradferry::tp {

// On the stack of every function of the vtable.
class HostCall {
 public:
  HostCall() { ++depth_; }
  ~HostCall() { --depth_; }
  HostCall(const HostCall&) = delete;
  HostCall& operator=(const HostCall&) = delete;

  static bool OnThisStack() { return depth_ > 0; }

 private:
  static thread_local int depth_;
};

class EventQueue {
 public:
  using Job = std::function<void()>;
  using Time = std::chrono::steady_clock::time_point;

  EventQueue();
  ~EventQueue();  // as Stop
  EventQueue(const EventQueue&) = delete;
  EventQueue& operator=(const EventQueue&) = delete;

  // Runs the event, now or on the dispatcher. Any thread.
  template <class Event>
  void Deliver(Event&& event) {
    size_t none = 0;
    if (HostCall::OnThisStack() || !waiting_.compare_exchange_strong(none, kHere + 1)) {
      return Post(std::forward<Event>(event));
    }
    event();
    EndHere();
  }

  // Runs a job on the dispatcher, after the events that wait. Any thread.
  void Post(Job job);

  // Runs a job on the dispatcher, not before due. It is no event: others may run at the same time elsewhere.
  void PostAt(Time due, Job job);

  // Runs what was posted, drops what PostAt holds, and ends the dispatcher. Not on the dispatcher.
  void Stop();

 private:
  void EndHere();
  void Run();
  bool RunOne(std::unique_lock<std::mutex>& lock);

  // While an event runs within Deliver; then the dispatcher waits.
  static constexpr size_t kHere = size_t{1} << (8 * sizeof(size_t) - 1);

  std::atomic<size_t> waiting_{0};  // jobs in jobs_, the event that runs, and kHere

  std::mutex mutex_;  // guards what follows; held while nothing else is called
  std::condition_variable changed_;
  std::deque<Job> jobs_;
  std::multimap<Time, Job> timed_;
  bool stopping_ = false;

  std::thread dispatcher_;
};

}  // namespace gradferry::tp
