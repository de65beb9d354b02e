// The clock of a transport that owns time (GF_TRANSPORT_CAP_TIME): a Clock over the plugin's now, timer_set,
// timer_cancel and hold. Owned by PluginTransport; the worker's timers run on the plugin's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <unordered_map>

#include "gradferry/transport.h"
#include "impl/base/clock.h"

namespace gradferry {

class TransportClock final : public Clock {
 public:
  // Both must outlive the clock; nothing is called on the transport before the first call on the clock.
  TransportClock(const gf_transport_vtable* vtable, gf_transport* const* transport)
      : vtable_(vtable), transport_(transport) {}

  int64_t Now() const override;
  TimerId Schedule(int64_t at, std::function<void()> fn) override;
  void Cancel(TimerId timer) override;
  void Hold(int delta) override;

  // on_timer.
  void Fire(TimerId timer);
  // After the transport has shut down: no timer fires any more.
  void DropAll();

 private:
  // The timer's fn, which nobody else gets then; empty when it was fired, cancelled or dropped.
  std::function<void()> Take(TimerId timer);

  const gf_transport_vtable* const vtable_;
  gf_transport* const* const transport_;
  std::mutex mutex_;  // guards the rest; a leaf: not held while the plugin or a timer's fn runs
  std::unordered_map<TimerId, std::function<void()>> timers_;
  TimerId last_timer_ = 0;
};

}  // namespace gradferry
