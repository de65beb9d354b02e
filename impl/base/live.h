// Counts of live objects per kind (gf_live_objects). An object that is counted holds a Live<kind> member.
#pragma once

#include <atomic>
#include <cstdint>

namespace gradferry {

// The GF_LIVE_* numbers of gradferry.h.
enum class LiveKind : uint32_t {
  kHandles = 0,
  kErrors = 1,
  kTensors = 2,
  kLists = 3,
  kOperators = 4,
  kConfigs = 5,
  kQueues = 6,
  kFutures = 7,
  kRequests = 8,
  kWorkers = 9,
  kContexts = 10,
  kOptimizers = 11,
  kAutogradContexts = 32,
  kSendFunctions = 33,
  kRecvFunctions = 34,
  kPasses = 35,
  kCalls = 36,
  kConnections = 37,
};
inline constexpr uint32_t kLiveKinds = 38;

inline std::atomic<int64_t>& LiveCount(LiveKind kind) {
  static std::atomic<int64_t> counts[kLiveKinds];
  return counts[static_cast<uint32_t>(kind)];
}

template <LiveKind kind>
struct Live {
  Live() { LiveCount(kind).fetch_add(1, std::memory_order_relaxed); }
  Live(const Live&) : Live() {}
  Live& operator=(const Live&) = default;
  ~Live() { LiveCount(kind).fetch_sub(1, std::memory_order_relaxed); }
};

}  // namespace gradferry
