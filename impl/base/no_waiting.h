// On the thread of a transport nothing may wait: what it waits for could only come by that thread. A handler that runs
// there stands in such a scope, and blocking functions ask for it.
#pragma once

namespace gradferry {

class NoWaitingScope {
 public:
  NoWaitingScope() { ++depth_; }
  ~NoWaitingScope() { --depth_; }
  NoWaitingScope(const NoWaitingScope&) = delete;

  static bool OnThisThread() { return depth_ > 0; }

 private:
  static inline thread_local int depth_ = 0;
};

}  // namespace gradferry
