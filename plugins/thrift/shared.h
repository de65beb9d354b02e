// What the parts of one transport share: the host, the options, the counters. It outlives them all.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

#include "gradferry/transport.h"
#include "plugins/thrift/options.h"

namespace gradferry::thrift {

struct Counters {
  std::atomic<uint64_t> frames_sent{0};
  std::atomic<uint64_t> bytes_sent{0};
  std::atomic<uint64_t> frames_received{0};
  std::atomic<uint64_t> bytes_received{0};
  std::atomic<uint64_t> bytes_copied{0};  // of segments, out of the read-ahead buffers
  std::atomic<uint64_t> dialled{0};
  std::atomic<uint64_t> accepted{0};
  std::atomic<uint64_t> refused{0};      // before the host heard of them
  std::atomic<uint64_t> connections{0};  // that live now
};

enum class LogLevel : uint32_t { kDebug = 0, kInfo = 1, kWarning = 2, kError = 3 };

struct Shared {
  Shared(const gf_transport_host* table, Options settings) : host(table), options(std::move(settings)) {}

  void Log(LogLevel level, const std::string& text) const {
    host->log(host->ctx, static_cast<uint32_t>(level), text.data(), text.size());
  }

  const gf_transport_host* const host;
  const Options options;
  Counters counters;
  std::atomic<int> unproven{0};  // accepted connections whose TLS handshake is not over
  std::atomic<int> calls{0};     // of the host, that have not returned yet
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
};

}  // namespace gradferry::thrift
