// The results as tables for people.
#pragma once

#include <string>
#include <vector>

#include "tests/bench/goals.h"
#include "tests/bench/results.h"

namespace gradferry::bench {

// Markdown, so that it can be put into a document.
std::string ResultsTable(const Results& results, const std::vector<Subject>& subjects);
std::string GoalsTable(const std::vector<Goal>& goals);

}  // namespace gradferry::bench
