// How a worker finds out that a peer is gone without saying so. The settings, and the silence of one connection: what a
// link knows about when it was last heard of, and what follows from it.
#pragma once

#include <atomic>
#include <cstdint>

#include "impl/base/clock.h"

namespace gradferry {

// [liveness] of the configuration; all in ns, kNever: off.
struct LivenessOptions {
  int64_t interval = int64_t{1000000000};             // of silence, before a heartbeat is asked for
  int64_t suspect = int64_t{2} * 1000000000;          // of silence, before a warning
  int64_t lost = int64_t{4} * 1000000000;             // of silence, before the connection is closed
  int64_t introduction = int64_t{5} * 1000000000;     // for the first message on a connection
  int64_t lease = int64_t{10} * 1000000000;           // between two questions whether contexts of others still live
  int64_t cleanup_budget = int64_t{10} * 1000000000;  // for telling one worker that a context was released
};

// When the other side of a connection was last heard of. Heard, Receiving and Sending are called from any thread, Look
// by one thread at a time.
//
// A frame that is under way is no silence, in either direction, but nobody tells how far it has come: it is given the
// time that a slow network needs for it. A heartbeat would wait behind it.
class Silence {
 public:
  enum class Verdict : uint8_t { kFine, kAsk, kSuspect, kLost };

  void Heard(int64_t now) { heard_.store(now, std::memory_order_relaxed); }
  // Bytes that have been announced and have not come yet; 0 when they have.
  void Receiving(uint64_t bytes) { receiving_.store(bytes, std::memory_order_relaxed); }
  // Bytes that have been handed to the transport: more, or fewer again.
  void Sending(int64_t delta) { sending_.fetch_add(delta, std::memory_order_relaxed); }

  // What to do now; asked for again and again while something depends on the other side. Silence counts from `grace` on
  // (the worker's, who may have stood still itself) and from the first Look after a Rest. *silent gets its length,
  // *next the time of the next Look, if nothing is heard before.
  Verdict Look(const LivenessOptions& options, int64_t now, int64_t grace, int64_t* silent, int64_t* next);
  // Nothing depends on the other side any more.
  void Rest() { since_ = 0; }

 private:
  // As slow as a network is expected to be when large tensors travel: 10 MB/s.
  static constexpr int64_t kNsPerByte = 100;

  std::atomic<int64_t> heard_{0};
  std::atomic<uint64_t> receiving_{0};
  std::atomic<int64_t> sending_{0};
  // Of Look.
  int64_t since_ = 0;  // 0: not looked at
  int64_t asked_ = 0;
  bool was_sending_ = false;
};

}  // namespace gradferry
