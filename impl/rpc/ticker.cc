// See ticker.h.
#include "impl/rpc/ticker.h"

#include <algorithm>
#include <utility>

namespace gradferry {

void Ticker::Add(int delta) {
  const int64_t before = reasons_.fetch_add(delta);
  if (before != 0 && before + delta != 0) return;
  std::lock_guard lock(mutex_);
  // Others may have changed the number since; what it is now counts.
  if (reasons_ > 0) {
    if (timer_ == 0 && !looking_ && !stopped_) {
      grace_ = clock_->Now();
      ArmLocked(grace_ + step_);
    }
  } else if (timer_ != 0) {
    clock_->Cancel(std::exchange(timer_, 0));
  }
}

void Ticker::Stop() {
  std::lock_guard lock(mutex_);
  stopped_ = true;
  if (timer_ != 0) clock_->Cancel(std::exchange(timer_, 0));
}

void Ticker::ArmLocked(int64_t at) {
  due_ = at;
  timer_ = clock_->Schedule(at, [weak = weak_from_this(), generation = ++generation_] {
    if (auto self = weak.lock()) self->Fire(generation);
  });
}

void Ticker::Fire(uint64_t generation) {
  int64_t now, grace;
  {
    std::lock_guard lock(mutex_);
    if (timer_ == 0 || generation != generation_ || stopped_) return;
    timer_ = 0;
    looking_ = true;
    now = clock_->Now();
    if (now - due_ > longest_) grace_ = now;
    grace = grace_;
  }
  const int64_t next = look_(now, grace);
  std::lock_guard lock(mutex_);
  looking_ = false;
  if (reasons_ > 0 && !stopped_) ArmLocked(std::clamp(next, now + step_, now + longest_));
}

}  // namespace gradferry
