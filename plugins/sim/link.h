// What one direction of a connection does to what is sent on it. Everything is drawn from the network's seed by the
// place of the draw (whose connection, which direction, the how-manieth frame, what for), never from a generator that
// several draws share: so a run does not depend on the order in which threads send, and a new kind of fault leaves the
// draws of the others as they were. Faults (loss, duplicates, reordering, truncation, flipped bits, partitions) have
// their place in Fate and Decide. Called by Connection.
#pragma once

#include <cstdint>

#include "plugins/sim/options.h"

namespace gradferry::sim {

// Names one direction of one connection of a network, in the same way in each run that connects in the same order.
struct LinkId {
  uint64_t dialler = 0;     // the how-manieth transport of the network dialled
  uint64_t connection = 0;  // its how-manieth connection
  bool to_listener = true;
};

// What becomes of one frame, or of a connection's beginning or end.
struct Fate {
  uint64_t delay_ns = 0;
};

class Link {
 public:
  // sender: the options of the transport that sends in this direction.
  Link(const Options& sender, const LinkId& id);

  // For what is sent next on this link.
  Fate Decide();

 private:
  // What a number is drawn for. Append only: the numbers take part in the draw.
  enum class Purpose : uint64_t { kLatency = 0 };

  uint64_t Draw(Purpose purpose) const;

  uint64_t stream_;  // of this link, from the seed
  uint64_t index_ = 0;
  uint64_t latency_min_ns_;
  uint64_t latency_max_ns_;
};

}  // namespace gradferry::sim
