// The goals: what is wanted, what came out.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tests/bench/results.h"

namespace gradferry::bench {

struct Goal {
  std::string what;
  std::string wanted;           // "at most 0.25x stock"
  std::optional<double> value;  // in the unit of `wanted`; none: it could not be measured
  std::string by;               // which transport
  bool met = false;
};

std::vector<Goal> JudgeGoals(const Results& results, const std::vector<Subject>& subjects);

}  // namespace gradferry::bench
