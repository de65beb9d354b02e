// The known name that somebody probably meant, for error texts about an unknown one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace gradferry {

// Number of single-character insertions, deletions, replacements and swaps of neighbours that turn a into b (optimal
// string alignment).
size_t EditDistance(std::string_view a, std::string_view b);

// The candidate nearest to word, or "" when none is near: letters of either case are the same, and a candidate
// "section.key" is also near when its last part is.
std::string Nearest(std::string_view word, const std::vector<std::string>& candidates);

// " (did you mean worker.threads?)", or "" when nothing is near.
std::string DidYouMean(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace gradferry
