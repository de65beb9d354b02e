#include "plugins/thrift/spin.h"

#include <sched.h>

#include <thread>

namespace gradferry::thrift {

bool Spin::Again() const {
  static const bool alone = std::thread::hardware_concurrency() < 2;
  if (alone || usual_ > kWorthIt || Clock::now() - began_ > 2 * usual_) return false;
  ::sched_yield();
  return true;
}

// A long wait counts as one a little too long, so that a pause does not take long to be forgotten.
void Spin::End() {
  const auto took = std::min<std::chrono::nanoseconds>(Clock::now() - began_, 4 * kWorthIt);
  usual_ += (took - usual_) / 4;
}

}  // namespace gradferry::thrift
