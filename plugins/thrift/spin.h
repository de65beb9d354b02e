// Whether a thread that waits should look again for a while before it sleeps. To be woken on another core costs some
// 20 microseconds on a virtual machine, several times what a small call takes: where what is waited for usually comes
// sooner than that, looking is cheaper. Where it does not, and where there is one core only, nothing is spent on it.
//
// Not thread safe: of whoever waits.
#pragma once

#include <algorithm>
#include <chrono>

namespace gradferry::thrift {

class Spin {
 public:
  using Clock = std::chrono::steady_clock;

  // A wait begins; then, until it is over: whether to look again instead of going to sleep. Lets others run first.
  void Begin() { began_ = Clock::now(); }
  bool Again() const;
  // What was waited for has come.
  void End();

 private:
  static constexpr std::chrono::nanoseconds kWorthIt = std::chrono::microseconds(60);

  Clock::time_point began_{};
  std::chrono::nanoseconds usual_ = kWorthIt;  // how long it takes lately
};

}  // namespace gradferry::thrift
