// See transport_clock.h.
#include "impl/transport/transport_clock.h"

#include <algorithm>
#include <utility>

namespace gradferry {

int64_t TransportClock::Now() const {
  return static_cast<int64_t>(std::min<uint64_t>(vtable_->now(*transport_), INT64_MAX));
}

TimerId TransportClock::Schedule(int64_t at, std::function<void()> fn) {
  TimerId timer;
  {
    std::lock_guard lock(mutex_);
    timer = ++last_timer_;
    timers_.emplace(timer, std::move(fn));
  }
  // A time that never comes is not the plugin's business: virtual time would jump to it.
  if (at != kNever) vtable_->timer_set(*transport_, timer, static_cast<uint64_t>(std::max<int64_t>(at, 0)));
  return timer;
}

void TransportClock::Cancel(TimerId timer) {
  const std::function<void()> dropped = Take(timer);
  if (dropped) vtable_->timer_cancel(*transport_, timer);
}

void TransportClock::Hold(int delta) { vtable_->hold(*transport_, delta); }

void TransportClock::Fire(TimerId timer) {
  if (const std::function<void()> fn = Take(timer)) fn();
}

void TransportClock::DropAll() {
  std::unordered_map<TimerId, std::function<void()>> dropped;  // destroyed after the lock
  std::lock_guard lock(mutex_);
  dropped.swap(timers_);
}

std::function<void()> TransportClock::Take(TimerId timer) {
  std::lock_guard lock(mutex_);
  const auto it = timers_.find(timer);
  if (it == timers_.end()) return nullptr;
  std::function<void()> fn = std::move(it->second);
  timers_.erase(it);
  return fn;
}

}  // namespace gradferry
