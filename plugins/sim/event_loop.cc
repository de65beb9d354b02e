// See event_loop.h.
#include "plugins/sim/event_loop.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace gradferry::sim {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kLongestWaitNs = 3600ull * 1000000000;

uint64_t MachineNow() {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count());
}

// A thread that takes none of the process's signals: their handlers belong to the host's runtime.
std::thread StartThread(std::function<void()> run) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread(std::move(run));
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_setname_np(thread.native_handle(), "gf-sim");
  return thread;
}

}  // namespace

EventLoop::EventLoop(bool virtual_time, StallCallback on_stall)
    : virtual_(virtual_time), on_stall_(std::move(on_stall)), thread_(StartThread([this] { Run(); })) {}

EventLoop::~EventLoop() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

uint64_t EventLoop::Now() const { return virtual_ ? virtual_now_.load() : MachineNow(); }

EventLoop::Key EventLoop::Schedule(uint64_t at, uint64_t place, std::function<void()> run) {
  Key key;
  bool first;
  {
    std::lock_guard lock(mutex_);
    key = {std::max(at, Now()), place, ++last_sequence_};
    const auto it = queue_.emplace(key, std::move(run)).first;
    first = it == queue_.begin();
  }
  if (first) wake_.notify_one();
  return key;
}

void EventLoop::Cancel(const Key& key) {
  Queue::node_type dropped;  // destroyed after the lock
  std::lock_guard lock(mutex_);
  dropped = queue_.extract(key);
}

void EventLoop::Hold(int64_t delta) {
  bool free;
  {
    std::lock_guard lock(mutex_);
    holds_ += delta;
    free = holds_ == 0;
  }
  if (free) wake_.notify_one();
}

void EventLoop::WarnOfStallAfter(uint64_t ms) {
  if (ms == 0) return;
  std::lock_guard lock(mutex_);
  if (stall_ms_ == 0 || ms < stall_ms_) stall_ms_ = ms;
}

void EventLoop::Run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    if (queue_.empty()) {
      wake_.wait(lock);
      continue;
    }
    if (!FirstIsDue(lock)) continue;
    Queue::node_type event = queue_.extract(queue_.begin());
    stall_reported_ = false;
    lock.unlock();
    event.mapped()();
    event = Queue::node_type();  // what the event held goes without the lock
    lock.lock();
  }
}

bool EventLoop::FirstIsDue(std::unique_lock<std::mutex>& lock) {
  const uint64_t at = queue_.begin()->first.at;
  const uint64_t now = Now();
  if (at <= now) return true;
  if (!virtual_) {
    wake_.wait_for(lock, std::chrono::nanoseconds(std::min(at - now, kLongestWaitNs)));
    return false;
  }
  if (holds_ > 0) {
    WaitWhileHeld(lock, at);
    return false;
  }
  virtual_now_ = at;
  return true;
}

void EventLoop::WaitWhileHeld(std::unique_lock<std::mutex>& lock, uint64_t next_at) {
  if (stall_ms_ == 0 || stall_reported_) return wake_.wait(lock);
  const uint64_t ms = stall_ms_;
  if (wake_.wait_for(lock, std::chrono::milliseconds(ms)) == std::cv_status::no_timeout) return;
  if (stop_ || holds_ == 0) return;
  stall_reported_ = true;
  lock.unlock();
  on_stall_(next_at, ms);
  lock.lock();
}

}  // namespace gradferry::sim
