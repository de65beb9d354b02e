// Short slices of time for threads that only pass things on: they run soon after being woken, beside threads that
// compute or copy. Linux gives who asks for short slices its turn earlier, and no more of it (EEVDF, 6.12 and later;
// sched_setattr(2)). Others refuse, and nothing is lost.
#pragma once

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace gradferry::plugins {

// Threads that are started on this thread while it lives have them.
class ShortSlices {
 public:
  ShortSlices() {
    attributes_.size = sizeof(attributes_);
    if (::syscall(SYS_sched_getattr, 0, &attributes_, sizeof(attributes_), 0) != 0) return;
    if (attributes_.policy != SCHED_OTHER) return;
    Attributes asked = attributes_;
    asked.runtime = kNanoseconds;
    set_ = ::syscall(SYS_sched_setattr, 0, &asked, 0) == 0;
  }
  ~ShortSlices() {
    if (set_) ::syscall(SYS_sched_setattr, 0, &attributes_, 0);
  }
  ShortSlices(const ShortSlices&) = delete;
  ShortSlices& operator=(const ShortSlices&) = delete;

 private:
  static constexpr uint64_t kNanoseconds = 100 * 1000;

  // struct sched_attr in its first form, which glibc does not declare.
  struct Attributes {
    uint32_t size = 0, policy = 0;
    uint64_t flags = 0;
    int32_t nice = 0;
    uint32_t priority = 0;
    uint64_t runtime = 0, deadline = 0, period = 0;
  };

  Attributes attributes_;
  bool set_ = false;
};

}  // namespace gradferry::plugins
