// The faults of a simulated network, as a configuration names them: rules for frames, partitions, deaths; and their
// reading from JSON. A rule knows nothing of what frames mean: it tells message types apart by bytes of the header at
// given places. Used by Options and Link.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "gradferry/transport.h"

namespace gradferry::sim {

enum class Fault {
  kLoss,       // never arrives
  kDelay,      // arrives later, and with it what is sent on the same connection after it
  kDuplicate,  // arrives again
  kTruncate,   // arrives without its end
  kFlip,       // arrives with a bit turned over
  kReset,      // the connection breaks instead, for both sides
};

// Where damage is done.
enum class Part { kAny, kHeader, kSegments };

constexpr uint64_t kAlways = UINT64_MAX;

// Does something to some of the frames that a transport sends. Times are ns since the network began.
struct FaultRule {
  Fault fault = Fault::kLoss;
  // Which frames. All that is given must be so.
  std::vector<std::pair<uint64_t, uint8_t>> bytes;  // offset in the header, and the value there
  bool to_listener = true;                          // on connections that the sender dialled
  bool to_dialler = true;                           // on those that it accepted
  std::vector<uint64_t> to;                         // numbers of the receivers' addresses; empty: all
  uint64_t from_ns = 0;
  uint64_t until_ns = kAlways;
  // Which of them: they are counted from 1 for each receiver, over all connections with it.
  uint64_t first = 1;
  uint64_t count = kAlways;
  double probability = 1;
  // What is done.
  uint64_t delay_min_ns = 0;  // of a delay; of a duplicate: how long after the original
  uint64_t delay_max_ns = 0;
  Part part = Part::kAny;
  uint64_t keep = kAlways;  // bytes of the part that arrive; kAlways: drawn
  uint64_t bit = kAlways;   // of the part; kAlways: drawn
};

// While it lasts, what is sent between listeners of different sets is lost, beginnings and ends of connections
// included. Those in no set form one more.
struct Partition {
  std::vector<std::vector<uint64_t>> sets;  // numbers of addresses
  uint64_t from_ns = 0;
  uint64_t until_ns = kAlways;

  bool Cuts(uint64_t from, uint64_t to, uint64_t now_ns) const;
};

// The transport breaks all its connections, and none can be made until it lives again.
struct Death {
  uint64_t from_ns = 0;
  uint64_t until_ns = kAlways;
};

struct Faults {
  std::vector<FaultRule> rules;
  std::vector<Partition> partitions;
  std::vector<Death> deaths;
};

// GF_OK, or GF_INVALID_ARGUMENT with error filled. The values of transport.sim.faults, .partitions and .deaths.
int32_t ParseRules(const nlohmann::json& value, std::vector<FaultRule>* out, gf_transport_error* error);
int32_t ParsePartitions(const nlohmann::json& value, std::vector<Partition>* out, gf_transport_error* error);
int32_t ParseDeaths(const nlohmann::json& value, std::vector<Death>* out, gf_transport_error* error);

}  // namespace gradferry::sim
