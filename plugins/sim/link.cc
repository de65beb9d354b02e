// See link.h.
#include "plugins/sim/link.h"

namespace gradferry::sim {
namespace {

// The finaliser of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

uint64_t Combine(uint64_t state, uint64_t value) { return Mix(state ^ Mix(value)); }

}  // namespace

Link::Link(const Options& sender, const LinkId& id)
    : stream_(Combine(Combine(Combine(Mix(sender.seed), id.dialler), id.connection), id.to_listener ? 0 : 1)),
      latency_min_ns_(sender.latency_min_ns),
      latency_max_ns_(sender.latency_max_ns) {}

Fate Link::Decide() {
  Fate fate;
  fate.delay_ns = latency_min_ns_ + Draw(Purpose::kLatency) % (latency_max_ns_ - latency_min_ns_ + 1);
  ++index_;
  return fate;
}

uint64_t Link::Draw(Purpose purpose) const { return Combine(Combine(stream_, index_), static_cast<uint64_t>(purpose)); }

}  // namespace gradferry::sim
