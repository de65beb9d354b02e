// See clock.h.
#include "impl/base/clock.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>

namespace gradferry {

int64_t DeadlineAfter(int64_t now, int64_t after) {
  if (after == kNever || after > kNever - now) return kNever;
  return now + after;
}

namespace {

class SteadyClock final : public Clock {
 public:
  SteadyClock() : thread_([this] { Run(); }) {}

  ~SteadyClock() override { Stop(); }

  void Stop() override {
    std::map<std::pair<int64_t, TimerId>, std::function<void()>> dropped;  // destroyed after the lock
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
      dropped.swap(timers_);
      due_.clear();
    }
    wake_.notify_one();
    if (thread_.joinable()) thread_.join();
  }

  int64_t Now() const override {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }

  TimerId Schedule(int64_t at, std::function<void()> fn) override {
    bool wake;
    TimerId id;
    {
      std::lock_guard lock(mutex_);
      if (stop_) return 0;
      id = ++last_id_;
      timers_.emplace(std::make_pair(at, id), std::move(fn));
      due_[id] = at;
      wake = at < sleeps_until_;
      if (wake) sleeps_until_ = at;
    }
    if (wake) wake_.notify_one();
    return id;
  }

  void Cancel(TimerId timer) override {
    std::function<void()> dropped;  // destroyed after the lock
    std::lock_guard lock(mutex_);
    auto it = due_.find(timer);
    if (it == due_.end()) return;
    auto node = timers_.extract({it->second, timer});
    dropped = std::move(node.mapped());
    due_.erase(it);
  }

 private:
  void Run() {
    std::unique_lock lock(mutex_);
    while (!stop_) {
      if (timers_.empty()) {
        sleeps_until_ = kNever;
        wake_.wait(lock);
        continue;
      }
      const int64_t at = timers_.begin()->first.first;
      const int64_t now = Now();
      if (at > now) {
        // Capped, so that a far deadline does not overflow the condition variable's time.
        const int64_t wait = std::min<int64_t>(at - now, int64_t{3600} * 1000000000);
        sleeps_until_ = now + wait;
        wake_.wait_for(lock, std::chrono::nanoseconds(wait));
        continue;
      }
      sleeps_until_ = INT64_MIN;  // awake: it looks again before it sleeps
      auto node = timers_.extract(timers_.begin());
      due_.erase(node.key().second);
      lock.unlock();
      node.mapped()();
      node.mapped() = nullptr;
      lock.lock();
    }
  }

  std::mutex mutex_;  // guards all below but thread_; held while nothing foreign runs
  std::condition_variable wake_;
  std::map<std::pair<int64_t, TimerId>, std::function<void()>> timers_;
  std::unordered_map<TimerId, int64_t> due_;
  TimerId last_id_ = 0;
  // Of the thread: only an earlier timer has to wake it. That of a call is nearly always taken back before, so the
  // thread sleeps on and looks once for many of them.
  int64_t sleeps_until_ = INT64_MIN;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Clock> NewSteadyClock() { return std::make_unique<SteadyClock>(); }

}  // namespace gradferry
