// Whether the cut run came to the same as the uncut one.
#pragma once

#include <string>

#include "tests/property/program.h"
#include "tests/property/reference.h"

namespace gradferry::property {

struct Comparison {
  std::string difference;  // the first that was found; empty: none
  int gradients = 0;       // defined in both
  int bit_exact = 0;       // of them
  int sparse = 0;          // of them
  int absent = 0;          // leaves that require grad and have no gradient, in both
};

Comparison Compare(const Program& program, const Outcome& uncut, const Outcome& cut);

}  // namespace gradferry::property
