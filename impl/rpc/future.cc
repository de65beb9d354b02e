// See future.h.
#include "impl/rpc/future.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace gradferry {

bool Future::Complete(Outcome outcome) {
  std::function<void(const Outcome&)> when_done;
  std::function<void()> cancel;  // destroyed after the lock
  std::shared_ptr<FutureDriver> driver;
  bool wake = false;
  {
    std::lock_guard lock(mutex_);
    if (outcome_) return false;
    outcome_.emplace(std::move(outcome));
    for (Clock* clock : std::exchange(waiters_clocks_, {})) clock->Hold(+1);
    when_done = std::exchange(when_done_, nullptr);
    cancel = std::exchange(cancel_, nullptr);
    driver = std::exchange(driver_, nullptr);
    wake = driving_ != std::thread::id() && driving_ != std::this_thread::get_id();
  }
  done_.notify_all();
  if (wake) driver->WakeDriver();
  if (when_done) when_done(*outcome_);
  return true;
}

bool Future::done() const {
  std::lock_guard lock(mutex_);
  return outcome_.has_value();
}

void Future::SetDriver(std::shared_ptr<FutureDriver> driver) {
  std::lock_guard lock(mutex_);
  if (!outcome_) driver_ = std::move(driver);
}

void Future::Drive(int64_t until) const {
  std::shared_ptr<FutureDriver> driver;
  {
    std::lock_guard lock(mutex_);
    if (outcome_ || !driver_ || driving_ != std::thread::id()) return;
    driver = driver_;
    driving_ = std::this_thread::get_id();
  }
  driver->Drive(until, [this] { return done(); });
  std::lock_guard lock(mutex_);
  driving_ = std::thread::id();
}

bool Future::Wait(int64_t timeout, Clock* held) const {
  // A year is for ever, and does not overflow the condition variable's time.
  constexpr int64_t kYear = int64_t{365} * 24 * 3600 * 1000000000;
  const auto now = [] { return std::chrono::steady_clock::now().time_since_epoch().count(); };
  const int64_t until = timeout == kNever ? kNever : now() + std::min(timeout, kYear);
  Drive(until);
  std::unique_lock lock(mutex_);
  if (outcome_) return true;
  if (held) {
    waiters_clocks_.push_back(held);
    held->Hold(-1);
  }
  auto ready = [this] { return outcome_.has_value(); };
  if (timeout == kNever) {
    done_.wait(lock, ready);
    return true;
  }
  if (done_.wait_for(lock, std::chrono::nanoseconds(until - now()), ready)) return true;
  if (held) {
    waiters_clocks_.erase(std::find(waiters_clocks_.begin(), waiters_clocks_.end(), held));
    held->Hold(+1);
  }
  return false;
}

const Future::Outcome& Future::outcome() const {
  std::lock_guard lock(mutex_);
  return *outcome_;
}

void Future::WhenDone(std::function<void(const Outcome&)> fn) {
  {
    std::lock_guard lock(mutex_);
    if (!outcome_) {
      when_done_ = std::move(fn);
      return;
    }
  }
  fn(*outcome_);
}

void Future::SetProfile(std::function<std::string()> profile) {
  std::lock_guard lock(mutex_);
  if (!outcome_) profile_ = std::move(profile);
}

std::optional<std::string> Future::Profile() const {
  std::function<std::string()> profile;
  {
    std::lock_guard lock(mutex_);
    profile = profile_;
  }
  if (!profile) return std::nullopt;
  return profile();
}

void Future::SetCancel(std::function<void()> fn) {
  std::lock_guard lock(mutex_);
  if (!outcome_) cancel_ = std::move(fn);
}

void Future::Cancel() {
  std::function<void()> cancel;
  {
    std::lock_guard lock(mutex_);
    cancel = std::exchange(cancel_, nullptr);
  }
  Complete(Status(Code::kCancelled, "the call was cancelled by its caller"));
  if (cancel) cancel();
}

}  // namespace gradferry
