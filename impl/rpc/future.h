// The outcome of an asynchronous call: completed exactly once, by whoever comes first. Any thread.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "impl/base/clock.h"
#include "impl/base/status.h"
#include "impl/tensor/value.h"

namespace gradferry {

// Something by which the outcome of a future comes, and which a thread that waits can make go faster.
class FutureDriver {
 public:
  virtual ~FutureDriver() = default;
  // Helps until done() or `until` (ns of std::chrono::steady_clock; kNever); may return early.
  virtual void Drive(int64_t until, const std::function<bool()>& done) = 0;
  // Whoever drives asks done() again. Any thread.
  virtual void WakeDriver() = 0;
};

class Future {
 public:
  using Outcome = Result<ValueList>;

  // False when it was complete already; then `outcome` is dropped.
  bool Complete(Outcome outcome);

  bool done() const;
  // Waits at most `timeout` ns of real time (kNever: for ever); whether it is done.
  // `held` (may be null), a clock that the caller holds, is let go meanwhile; it is held again before anybody sees that
  // the future is complete, so that no simulated time passes between that and the end of the wait.
  bool Wait(int64_t timeout, Clock* held = nullptr) const;
  // done() must be true. Values are shared, not moved out: it may be asked again.
  const Outcome& outcome() const;

  // Called once when it completes (at once if it has), on the completing thread; must be short. At most one.
  void WhenDone(std::function<void(const Outcome&)> fn);

  // The profile of the call as JSON, made when somebody asks; to be set before it completes. None: it was not profiled.
  void SetProfile(std::function<std::string()> profile);
  std::optional<std::string> Profile() const;

  // Whom Wait helps. Dropped at completion.
  void SetDriver(std::shared_ptr<FutureDriver> driver);

  // What Cancel does besides completing with kCancelled. Dropped at completion.
  void SetCancel(std::function<void()> fn);
  void Cancel();

 private:
  void Drive(int64_t until) const;

  mutable std::mutex mutex_;  // guards the rest; a leaf lock
  mutable std::condition_variable done_;
  mutable std::vector<Clock*> waiters_clocks_;
  std::optional<Outcome> outcome_;  // never changed once set
  std::function<void(const Outcome&)> when_done_;
  std::function<void()> cancel_;
  std::function<std::string()> profile_;
  mutable std::shared_ptr<FutureDriver> driver_;
  mutable std::thread::id driving_;  // who is in Drive
};

}  // namespace gradferry
