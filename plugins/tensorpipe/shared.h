// What the parts of one transport share: the host, the event queue, the counters. It outlives them all.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>

#include "gradferry/transport.h"
#include "plugins/tensorpipe/event_queue.h"

namespace gradferry::tp {

struct Counters {
  std::atomic<uint64_t> frames_sent{0};
  std::atomic<uint64_t> bytes_sent{0};
  std::atomic<uint64_t> frames_received{0};
  std::atomic<uint64_t> bytes_received{0};
  std::atomic<uint64_t> dialled{0};
  std::atomic<uint64_t> accepted{0};
  std::atomic<uint64_t> connections{0};  // that live now
  std::atomic<uint64_t> listener_restarts{0};
};

enum class LogLevel : uint32_t { kDebug = 0, kInfo = 1, kWarning = 2, kError = 3 };

struct Shared {
  explicit Shared(const gf_transport_host* table) : host(table) {}

  void Log(LogLevel level, const std::string& text) const {
    const std::string line = "tensorpipe: " + text;
    host->log(host->ctx, static_cast<uint32_t>(level), line.data(), line.size());
  }

  const gf_transport_host* const host;
  uint64_t max_segment = std::numeric_limits<uint64_t>::max();  // set before the first connection
  Counters counters;
  std::atomic<int> calls{0};  // of the host, that have not returned yet
  EventQueue events;
  std::string plain_path = "tcp";      // how large segments travel otherwise; set as above
  bool cma = false;                    // large segments are read from the sender where that works; set as above
  std::unique_ptr<EventQueue> copies;  // with cma: its thread reads other processes' memory
};

// A call from the host into this transport.
class CallGuard {
 public:
  explicit CallGuard(Shared* shared) : shared_(shared) { ++shared_->calls; }
  ~CallGuard() { --shared_->calls; }
  CallGuard(const CallGuard&) = delete;
  CallGuard& operator=(const CallGuard&) = delete;

 private:
  Shared* const shared_;
  HostCall on_stack_;
};

}  // namespace gradferry::tp
