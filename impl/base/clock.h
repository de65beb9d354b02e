// Time and timers. A worker uses one Clock: the machine's (SteadyClock), or its transport's when that owns time
// (simulation). Times are nanoseconds on the clock's own axis.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace gradferry {

inline constexpr int64_t kNever = INT64_MAX;

using TimerId = uint64_t;  // 0 is no timer

class Clock {
 public:
  virtual ~Clock() = default;
  virtual int64_t Now() const = 0;
  // Runs fn once, at this time or later, on a thread of the clock's: fn must be short and must not block.
  virtual TimerId Schedule(int64_t at, std::function<void()> fn) = 0;
  // The timer's fn does not start after this returned, unless it has begun already. Does not wait for it.
  virtual void Cancel(TimerId timer) = 0;
  // While the number of Holds is not zero, a clock whose time can jump does not jump to a timer.
  virtual void Hold(int delta) { (void)delta; }
  // No timer's fn runs after this; later Schedules are forgotten. Not on a thread of the clock's. Idempotent.
  virtual void Stop() {}
};

// now + after, without overflow; kNever stays kNever.
int64_t DeadlineAfter(int64_t now, int64_t after);

// CLOCK_MONOTONIC and one thread for the timers, which Stop (or the destructor) joins.
std::unique_ptr<Clock> NewSteadyClock();

}  // namespace gradferry
