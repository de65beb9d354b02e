// What a worker counts, for gf_worker_info and gf_worker_metrics. Counters are atomics that whoever does the thing adds
// to, from any thread; whoever wants to know reads them one by one, so that sums need not fit to the last unit.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>

#include "impl/base/histogram.h"
#include "impl/base/status.h"
#include "impl/wire/messages.h"

namespace gradferry {

using Count = std::atomic<uint64_t>;

inline void Add(Count& count, uint64_t more = 1) { count.fetch_add(more, std::memory_order_relaxed); }

// What is asked of a worker.
enum class CallKind : uint8_t { kHandler, kOperator, kMark, kGradients, kTurn, kAbort, kCleanup, kLease, kOther };
inline constexpr size_t kCallKinds = 9;
const char* CallKindName(CallKind kind);
CallKind CallKindOf(const Message& request);

// How things of one kind ended, and how long they took.
class OutcomeMetrics {
 public:
  void Record(Code outcome, int64_t elapsed_ns) {
    Add(outcomes_[PlaceOf(outcome)]);
    durations_.Record(elapsed_ns);
  }
  // Calls fn(code, count) for each outcome that there was.
  template <class Fn>
  void ForEach(Fn fn) const {
    for (size_t place = 0; place < outcomes_.size(); ++place) {
      const uint64_t count = outcomes_[place].load(std::memory_order_relaxed);
      if (count > 0) fn(CodeAt(place), count);
    }
  }
  const DurationHistogram& durations() const { return durations_; }

 private:
  // The codes are 0 to 16, and ours 64 to 68.
  static constexpr size_t kCanonical = 17, kOurs = 64, kAll = kCanonical + 5;
  static size_t PlaceOf(Code code) {
    const auto number = static_cast<size_t>(code);
    const size_t place = number < kCanonical ? number : number - kOurs + kCanonical;
    return place < kAll ? place : static_cast<size_t>(Code::kUnknown);
  }
  static Code CodeAt(size_t place) {
    return static_cast<Code>(place < kCanonical ? place : place - kCanonical + kOurs);
  }

  std::array<Count, kAll> outcomes_{};
  DurationHistogram durations_;
};

// One OutcomeMetrics for each kind; those that are never used take no memory.
class KindMetrics {
 public:
  KindMetrics() = default;
  KindMetrics(const KindMetrics&) = delete;
  ~KindMetrics();
  void Record(CallKind kind, Code outcome, int64_t elapsed_ns) { Of(kind).Record(outcome, elapsed_ns); }
  // Null when there was nothing of this kind.
  const OutcomeMetrics* Find(CallKind kind) const { return kinds_[static_cast<size_t>(kind)]; }

 private:
  OutcomeMetrics& Of(CallKind kind);
  std::array<std::atomic<OutcomeMetrics*>, kCallKinds> kinds_{};
};

// Of one peer. Lives as long as the worker.
struct PeerMetrics {
  Count frames_sent{0};
  Count bytes_sent{0};
  Count frames_received{0};
  Count bytes_received{0};
  Count connected{0};    // introductions on connections that this worker made
  Count accepted{0};     // and on those that the peer made
  Count lost{0};         // connections, both ways, that ended without a goodbye
  KindMetrics calls;     // from the request to its answer
  KindMetrics requests;  // from a request's arrival to our answer
};

struct RpcMetrics {
  Count frames_sent{0};
  Count bytes_sent{0};  // header and segments of frames handed to the transport
  Count frames_received{0};
  Count bytes_received{0};
  Count frames_duplicate{0};  // came again and were dropped
  Count connections_lost{0};  // ended without a goodbye
  Count cleanups_retried{0};
  Count transfers_sent{0};      // messages whose tensors were announced, and sent in chunks
  Count transfers_given_up{0};  // before all of them was sent
  Count strangers{0};           // connections of others that ended before they were introduced
  OutcomeMetrics passes;        // that this worker started

  nlohmann::json Describe() const {
    return {{"frames_sent", frames_sent.load()},           {"bytes_sent", bytes_sent.load()},
            {"frames_received", frames_received.load()},   {"bytes_received", bytes_received.load()},
            {"frames_duplicate", frames_duplicate.load()}, {"connections_lost", connections_lost.load()},
            {"cleanups_retried", cleanups_retried.load()}, {"strangers", strangers.load()},
            {"transfers_sent", transfers_sent.load()},     {"transfers_given_up", transfers_given_up.load()}};
  }
};

}  // namespace gradferry
