// A simulated network: the transports of one name in this process, their addresses and the loop that they share. It
// begins with its first transport and ends with its last. Called by Transport and Connection.
//
// Locks, in this order: the registry's, a network's mutex(), the loop's. Events run with none of them held, and no
// event of a host is called under one; the host's log is.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "gradferry/transport.h"
#include "plugins/sim/event_loop.h"
#include "plugins/sim/options.h"

namespace gradferry::sim {

class Transport;

class Network {
 public:
  // The network of this name, which is made when there is none. All its transports must agree on time and seed.
  static int32_t Join(const Options& options, std::shared_ptr<Network>* out, gf_transport_error* error);

  explicit Network(const Options& options);
  // Joins the loop's thread: not on it.
  ~Network();

  const std::string& name() const { return name_; }
  EventLoop& loop() { return loop_; }
  // Guards what is called ...Locked here, and in Transport and Connection what they say.
  std::mutex& mutex() { return mutex_; }

  // "sim://<network>/<number>", and back: GF_INVALID_ARGUMENT for anything else, another network's address included.
  std::string AddressOf(uint64_t number) const;
  int32_t ParseAddress(const std::string& address, uint64_t* number, gf_transport_error* error) const;

  // The how-manieth transport of the network this is.
  uint64_t AddLocked(Transport* transport);
  void RemoveLocked(Transport* transport);
  // Null when nobody listens there.
  Transport* ListenerLocked(uint64_t number) const;
  // False when somebody listens there already.
  bool ListenLocked(uint64_t number, Transport* transport);
  // ns since the network began.
  uint64_t Age() const { return loop_.Now() - began_; }
  // Adds something that has happened to the trace: two runs with equal traces went alike.
  void TraceLocked(uint64_t place, uint64_t index, uint64_t what);
  uint64_t trace_locked() const { return trace_; }
  void StopListeningLocked(uint64_t number);
  uint64_t FreeNumberLocked();

 private:
  void ReportStall(uint64_t next_at, uint64_t real_ms);

  const std::string name_;
  const uint64_t seed_;

  std::mutex mutex_;  // guards the five below
  std::set<Transport*> transports_;
  std::map<uint64_t, Transport*> listeners_;
  uint64_t transports_made_ = 0;
  uint64_t last_number_ = 0;
  uint64_t trace_ = 0;

  EventLoop loop_;  // last: its thread uses all of the above but the next
  const uint64_t began_;
};

}  // namespace gradferry::sim
