// One timer of a worker that runs while there is a reason: its look is called again and again, each time when the last
// one asked for it. Without a reason there is no timer, so that an idle worker costs nothing and, on a clock whose time
// can jump, time stands still. Any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "impl/base/clock.h"

namespace gradferry {

class Ticker final : public std::enable_shared_from_this<Ticker> {
 public:
  // Called on the clock's thread, one call at a time; returns when it wants the next one. `grace` is the time before
  // which nothing can be said of others: nobody looked, because there was no reason or because this process stood still
  // (stopped, in a debugger, on a machine that slept), which shows by a timer that is late by more than `longest`.
  using Look = std::function<int64_t(int64_t now, int64_t grace)>;

  // A look comes `step` after the last one at the earliest, `longest` after it at the latest. The clock must outlive
  // the ticker.
  Ticker(Clock* clock, int64_t step, int64_t longest, Look look)
      : clock_(clock), step_(step), longest_(longest), look_(std::move(look)) {}

  // Changes the number of reasons.
  void Add(int delta);
  // No look begins after this. Idempotent.
  void Stop();

 private:
  void ArmLocked(int64_t at);
  void Fire(uint64_t generation);

  Clock* const clock_;
  const int64_t step_;
  const int64_t longest_;
  const Look look_;
  std::atomic<int64_t> reasons_{0};

  std::mutex mutex_;  // guards the rest; before the clock's
  TimerId timer_ = 0;
  int64_t due_ = 0;          // of timer_
  uint64_t generation_ = 0;  // of timer_: one that was cancelled when it had begun is of an older one
  int64_t grace_ = 0;
  bool looking_ = false;
  bool stopped_ = false;
};

// A reason for as long as it lives; of no ticker, none.
class TickerReason {
 public:
  TickerReason() = default;
  explicit TickerReason(std::shared_ptr<Ticker> ticker) : ticker_(std::move(ticker)) {
    if (ticker_) ticker_->Add(+1);
  }
  TickerReason(TickerReason&& other) noexcept = default;
  TickerReason& operator=(TickerReason&&) = delete;
  ~TickerReason() {
    if (ticker_) ticker_->Add(-1);
  }

 private:
  std::shared_ptr<Ticker> ticker_;
};

}  // namespace gradferry
