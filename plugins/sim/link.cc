// See link.h.
#include "plugins/sim/link.h"

#include <algorithm>

namespace gradferry::sim {
namespace {

// The finaliser of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// From 0 to 1, without 1.
double Unit(uint64_t draw) { return static_cast<double>(draw >> 11) * 0x1p-53; }

struct Range {
  uint64_t begin = 0;  // bytes of header and segments, one after the other
  uint64_t length = 0;
};

Range RangeOf(Part part, const FrameView& frame) {
  switch (part) {
    case Part::kHeader:
      return {0, frame.header_length};
    case Part::kSegments:
      return {frame.header_length, frame.segment_bytes};
    case Part::kAny:
      break;
  }
  return {0, frame.header_length + frame.segment_bytes};
}

}  // namespace

uint64_t Combine(uint64_t state, uint64_t value) { return Mix(state ^ Mix(value)); }

Link::Link(Sender* sender, const LinkId& id)
    : sender_(sender),
      id_(id),
      from_(id.to_listener ? id.dialler_at : id.listener_at),
      to_(id.to_listener ? id.listener_at : id.dialler_at),
      receiver_(Combine(id.to_listener ? 0 : 1, id.to_listener ? id.listener_at : id.dialler)),
      stream_(Combine(Combine(Combine(Mix(sender->options.seed), id.dialler), id.connection), id.to_listener ? 0 : 1)) {
}

Fate Link::Decide(const FrameView* frame, uint64_t now_ns) {
  const Options& options = sender_->options;
  Fate fate;
  fate.index = index_;
  fate.delay_ns =
      options.latency_min_ns + Draw(Purpose::kLatency) % (options.latency_max_ns - options.latency_min_ns + 1);
  for (const Partition& partition : options.faults.partitions) fate.lost |= partition.Cuts(from_, to_, now_ns);
  if (frame != nullptr) {
    for (size_t i = 0; i < options.faults.rules.size(); ++i) {
      const FaultRule& rule = options.faults.rules[i];
      if (Applies(rule, i, *frame, now_ns) && Apply(rule, i, *frame, &fate)) ++sender_->struck;
    }
  }
  ++index_;
  return fate;
}

bool Link::Applies(const FaultRule& rule, size_t number, const FrameView& frame, uint64_t now_ns) {
  if (id_.to_listener ? !rule.to_listener : !rule.to_dialler) return false;
  if (now_ns < rule.from_ns || now_ns >= rule.until_ns) return false;
  if (!rule.to.empty() && std::find(rule.to.begin(), rule.to.end(), to_) == rule.to.end()) return false;
  for (const auto& [offset, value] : rule.bytes) {
    if (offset >= frame.header_length || frame.header[offset] != value) return false;
  }
  const uint64_t nth = ++sender_->matched_[{number, receiver_}];
  if (nth < rule.first || nth - rule.first >= rule.count) return false;
  return Unit(Draw(Purpose::kHappens, number)) < rule.probability;
}

bool Link::Apply(const FaultRule& rule, size_t number, const FrameView& frame, Fate* fate) const {
  const uint64_t delay_ns =
      rule.delay_min_ns + Draw(Purpose::kDelay, number) % (rule.delay_max_ns - rule.delay_min_ns + 1);
  const Range range = RangeOf(rule.part, frame);
  switch (rule.fault) {
    case Fault::kLoss:
      fate->lost = true;
      break;
    case Fault::kDelay:
      fate->delay_ns += delay_ns;
      break;
    case Fault::kDuplicate:
      fate->again_after_ns = delay_ns;
      break;
    case Fault::kTruncate: {
      if (range.length == 0) return false;
      const uint64_t kept = rule.keep != kAlways ? rule.keep : Draw(Purpose::kKeep, number) % range.length;
      // At least one byte arrives: a frame has a header.
      if (kept >= range.length) return false;
      fate->keep = std::max<uint64_t>(range.begin + kept, 1);
      break;
    }
    case Fault::kFlip: {
      if (range.length == 0) return false;
      const uint64_t bit = rule.bit != kAlways ? rule.bit : Draw(Purpose::kFlip, number) % (8 * range.length);
      if (bit >= 8 * range.length) return false;
      fate->flip = 8 * range.begin + bit;
      break;
    }
    case Fault::kReset:
      fate->reset = true;
      break;
  }
  return true;
}

uint64_t Link::Draw(Purpose purpose) const { return Combine(Combine(stream_, index_), static_cast<uint64_t>(purpose)); }

uint64_t Link::Draw(Purpose purpose, size_t rule) const { return Combine(Draw(purpose), rule); }

}  // namespace gradferry::sim
