// What a worker counts about its connections, for gf_worker_info. Owned by the worker, which outlives its links; all of
// them add, from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <nlohmann/json.hpp>

namespace gradferry {

struct RpcMetrics {
  using Count = std::atomic<uint64_t>;

  Count frames_sent{0};
  Count bytes_sent{0};  // header and segments of frames handed to the transport
  Count frames_received{0};
  Count bytes_received{0};
  Count frames_duplicate{0};  // came again and were dropped
  Count connections_lost{0};  // ended without a goodbye
  Count cleanups_retried{0};

  nlohmann::json Describe() const {
    return {{"frames_sent", frames_sent.load()},           {"bytes_sent", bytes_sent.load()},
            {"frames_received", frames_received.load()},   {"bytes_received", bytes_received.load()},
            {"frames_duplicate", frames_duplicate.load()}, {"connections_lost", connections_lost.load()},
            {"cleanups_retried", cleanups_retried.load()}};
  }
};

inline void Add(RpcMetrics::Count& count, uint64_t more = 1) { count.fetch_add(more, std::memory_order_relaxed); }

}  // namespace gradferry
