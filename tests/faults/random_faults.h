// Random programs (tests/property) over a network with random faults. Whatever strikes, a run comes to what the uncut
// run comes to or to a typed error; nothing is left; and when the faults are over the same program is exact.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/property/program.h"

namespace gradferry::faults {

// One entry of transport.sim.faults, .partitions or .deaths of one worker.
struct WorkerFault {
  int worker = 0;
  std::string list;  // "faults", ...
  std::string table;
};

// What a seed becomes.
struct Case {
  uint64_t seed = 0;
  property::Program program;
  std::vector<WorkerFault> faults;
};

Case MakeCase(uint64_t seed);
std::string Describe(const Case& tried);

struct Verdict {
  std::string wrong;    // empty: as promised
  bool failed = false;  // with a typed error
  int64_t struck = 0;   // how often faults did
};

// Runs it, in this process. Throws property::Stuck when something does not end.
Verdict Try(const Case& tried);

}  // namespace gradferry::faults
