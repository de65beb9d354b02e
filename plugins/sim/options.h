// What a configuration's [transport.sim] may say, and its reading from JSON. An unknown key or a wrong type is an error
// that names it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "gradferry/transport.h"
#include "plugins/sim/faults.h"

namespace gradferry::sim {

struct Options {
  std::string network = "default";  // transports of one name in this process reach each other
  uint64_t seed = 0;
  bool virtual_time = false;
  uint64_t latency_min_ns = 0;  // of what this transport sends; drawn from the seed for each frame
  uint64_t latency_max_ns = 0;
  uint64_t stall_ms = 10000;  // virtual time: real time of standing still after which a warning is logged; 0 is never
  Faults faults;              // done to what this transport sends
};

// The same as JSON, for the descriptor.
extern const char kOptionsSchema[];

// GF_OK, or GF_INVALID_ARGUMENT with error filled. An empty text means the defaults.
int32_t ParseOptions(const char* text, size_t length, Options* options, gf_transport_error* error);

// [A-Za-z0-9_.-]+: what can stand in an address.
bool IsNetworkName(const std::string& name);

}  // namespace gradferry::sim
