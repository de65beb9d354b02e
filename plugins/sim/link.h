// What one direction of a connection does to what is sent on it. Everything is drawn from the network's seed by the
// place of the draw (whose connection, which direction, the how-manieth frame, what for, by which rule), never from a
// generator that several draws share: so a run does not depend on the order in which threads send, and faults that are
// switched on leave the draws of all others as they were. Called by Connection, with the network's mutex held.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "plugins/sim/options.h"

namespace gradferry::sim {

// A number that follows from two. Chained, it names places.
uint64_t Combine(uint64_t state, uint64_t value);

// Names one direction of one connection of a network, in the same way in each run that connects in the same order.
struct LinkId {
  uint64_t dialler = 0;     // the how-manieth transport of the network dialled
  uint64_t connection = 0;  // its how-manieth connection
  bool to_listener = true;
  uint64_t dialler_at = 0;   // the number at which the dialler listens; 0: it does not
  uint64_t listener_at = 0;  // that was dialled
};

// What becomes of one frame, or of a connection's beginning or end.
struct Fate {
  uint64_t index = 0;  // of what is sent, on its link
  uint64_t delay_ns = 0;
  bool lost = false;
  bool reset = false;
  std::optional<uint64_t> again_after_ns;  // it arrives a second time
  // Bytes of header and segments, one after the other, that arrive; and a bit of them that is turned over.
  std::optional<uint64_t> keep;
  std::optional<uint64_t> flip;

  bool damaged() const { return keep.has_value() || flip.has_value(); }
};

// The lengths of a frame, and its header.
struct FrameView {
  const unsigned char* header = nullptr;
  uint64_t header_length = 0;
  uint64_t segment_bytes = 0;
};

// What one transport sends: its faults, and how many frames each rule has seen for each receiver.
class Sender {
 public:
  explicit Sender(const Options& options) : options(options) {}

  const Options& options;
  uint64_t struck = 0;  // how often a rule has done something

 private:
  friend class Link;
  std::map<std::pair<size_t, uint64_t>, uint64_t> matched_;  // by rule and receiver
};

class Link {
 public:
  // sender: of the transport that sends in this direction; must outlive the link's last Decide.
  Link(Sender* sender, const LinkId& id);

  // Names this link among all of the network.
  uint64_t stream() const { return stream_; }

  // For what is sent next on this link: a frame, or (null) the connection's beginning or end. now_ns: since the
  // network began.
  Fate Decide(const FrameView* frame, uint64_t now_ns);

 private:
  // What a number is drawn for. Append only: the numbers take part in the draw.
  enum class Purpose : uint64_t { kLatency = 0, kHappens = 1, kDelay = 2, kKeep = 3, kFlip = 4 };

  uint64_t Draw(Purpose purpose) const;
  uint64_t Draw(Purpose purpose, size_t rule) const;
  bool Applies(const FaultRule& rule, size_t number, const FrameView& frame, uint64_t now_ns);
  // False when the frame has not what the rule damages.
  bool Apply(const FaultRule& rule, size_t number, const FrameView& frame, Fate* fate) const;

  Sender* sender_;
  LinkId id_;
  uint64_t from_;      // the sender's number, 0: none
  uint64_t to_;        // the receiver's
  uint64_t receiver_;  // the same receiver for all connections with it
  uint64_t stream_;    // of this link, from the seed
  uint64_t index_ = 0;
};

}  // namespace gradferry::sim
