// One transport of a simulated network: what the host creates. It owns its connections and timers, and hands its calls
// to them. Called by the plugin's function table; any thread.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "gradferry/transport.h"
#include "plugins/sim/event_loop.h"
#include "plugins/sim/link.h"
#include "plugins/sim/network.h"
#include "plugins/sim/options.h"

namespace gradferry::sim {

class Connection;

constexpr uint64_t kMaxHeader = 1024 * 1024;

// For the stats.
struct Counters {
  uint64_t connections = 0;  // that began here, dialled and accepted
  uint64_t frames_sent = 0;
  uint64_t bytes_sent = 0;
  uint64_t frames_received = 0;
  uint64_t frames_lost = 0;  // sent and not received, because the connection ended or by a fault
  uint64_t frames_damaged = 0;
  uint64_t frames_repeated = 0;
};

// What a network's trace is made of.
constexpr uint64_t kTraceBegin = 1;
constexpr uint64_t kTraceFrame = 2;
constexpr uint64_t kTraceEnd = 3;
constexpr uint64_t kTraceDeath = 4;

class Transport {
 public:
  // The functions of gf_transport_vtable.
  static int32_t Create(const gf_transport_host* host, const char* options, size_t length, Transport** out,
                        gf_transport_error* error);
  static void Destroy(Transport* transport);
  int32_t Listen(const std::string& address, char* buffer, size_t capacity, size_t* length, gf_transport_error* error);
  int32_t Connect(const std::string& address, void* token, Connection** out, gf_transport_error* error);
  void Shutdown();
  int32_t Stats(char* buffer, size_t capacity, size_t* length);
  uint64_t Now() { return network_->loop().Now(); }
  void SetTimer(uint64_t timer, uint64_t at);
  void CancelTimer(uint64_t timer);
  void Hold(int32_t delta);

  // For its connections and its network. Those called ...Locked want network().mutex() held.
  const gf_transport_host& host() const { return host_; }
  const Options& options() const { return options_; }
  Network& network() { return *network_; }
  Counters& CountersLocked() { return counters_; }
  Sender& SenderLocked() { return sender_; }
  // The number at which it listens; 0: it does not.
  uint64_t ListeningAtLocked() const { return listening_at_.value_or(0); }
  bool DeadLocked() const;
  void AddLocked(std::shared_ptr<Connection> connection);
  void RemoveLocked(const std::shared_ptr<Connection>& connection);
  void WarnOfStallLocked(const std::string& next_at, uint64_t real_ms);

 private:
  struct Timer {
    EventLoop::Key key;
    uint64_t generation;  // tells a timer from one that was set before under the same number
  };

  Transport(const gf_transport_host* host, const Options& options, std::shared_ptr<Network> network);

  void Warn(const std::string& text);
  void FireTimer(uint64_t timer, uint64_t generation);
  void CancelTimerLocked(uint64_t timer);
  void EndShutdown();
  void ScheduleDeathsLocked();
  void Die();

  const gf_transport_host& host_;
  const Options options_;
  const std::shared_ptr<Network> network_;

  // All guarded by network_->mutex().
  uint64_t ordinal_ = 0;  // the how-manieth transport of the network
  std::optional<uint64_t> listening_at_;
  bool has_listened_ = false;
  uint64_t dialled_ = 0;
  std::set<std::shared_ptr<Connection>> connections_;
  std::map<uint64_t, Timer> timers_;
  uint64_t timers_set_ = 0;
  int64_t holds_ = 0;
  Counters counters_;
  Sender sender_{options_};
  std::vector<EventLoop::Key> deaths_;  // to come
  bool shutting_down_ = false;
  bool finished_ = false;  // on_shutdown has returned
  std::condition_variable finished_wake_;
};

}  // namespace gradferry::sim
